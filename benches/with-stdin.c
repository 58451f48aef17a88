/* with-stdin FILE COMMAND [ARG...]: becomes COMMAND with FILE as its stdin.
 * A shell would do it too, at more noise than some of what is measured. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("usage: with-stdin FILE COMMAND [ARG...]\n", stderr);
        return 2;
    }
    int file = open(argv[1], O_RDONLY);
    if (file < 0 || dup2(file, STDIN_FILENO) < 0) {
        perror(argv[1]);
        return 1;
    }
    close(file);
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 127;
}
