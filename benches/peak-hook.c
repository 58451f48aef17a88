/* A hook that runs another one, $PEAK_HOOK, in its place, and appends its peak resident memory to the file $PEAK_FILE:
 * "<state> <KiB>". */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <spawn.h>

extern char **environ;

int main(int argc, char **argv) {
    pid_t pid;
    int status;
    struct rusage usage;
    char *called[] = {"reference-transaction", argc > 1 ? argv[1] : NULL, NULL};
    if (posix_spawn(&pid, getenv("PEAK_HOOK"), NULL, NULL, called, environ) || wait4(pid, &status, 0, &usage) < 0) {
        return 1;
    }
    FILE *file = fopen(getenv("PEAK_FILE"), "a");
    if (!file || fprintf(file, "%s %ld\n", called[1], usage.ru_maxrss) < 0 || fclose(file)) {
        return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
