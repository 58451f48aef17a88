/* git-hook-call RUNS STATE INPUT PROGRAM...: what one hook call costs, from fork to exit, without git around it. Runs the
 * programs as `reference-transaction STATE` with the file INPUT as stdin, in rotating order, and prints a line for each:
 * its path, then microseconds, one figure per round. A hook looks for the git above it: hence the name. */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fputs("usage: git-hook-call RUNS STATE INPUT PROGRAM...\n", stderr);
        return 2;
    }
    int runs = atoi(argv[1]), programs = argc - 4;
    char *called[] = {"reference-transaction", argv[2], NULL};
    double *took = malloc(sizeof *took * (size_t)(runs * programs));
    posix_spawn_file_actions_t input;
    if (!took || posix_spawn_file_actions_init(&input) ||
        posix_spawn_file_actions_addopen(&input, 0, argv[3], O_RDONLY, 0)) {
        return 1;
    }
    for (int round = 0; round < runs; round++) {
        for (int turn = 0; turn < programs; turn++) {
            int which = (turn + round) % programs, status;
            pid_t pid;
            double start = now();
            if (posix_spawn(&pid, argv[4 + which], &input, NULL, called, environ) || waitpid(pid, &status, 0) < 0 || status) {
                fprintf(stderr, "%s failed\n", argv[4 + which]);
                return 1;
            }
            took[which * runs + round] = now() - start;
        }
    }
    for (int which = 0; which < programs; which++) {
        printf("%s", argv[4 + which]);
        for (int round = 0; round < runs; round++) {
            printf(" %.1f", took[which * runs + round]);
        }
        printf("\n");
    }
    return 0;
}
