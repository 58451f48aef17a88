/* The least that a durable replacement of files costs: for each of COUNT files write, fsync, rename; then one fsync of
   the directory. usage: write-files SOURCE-DIRECTORY TARGET-DIRECTORY COUNT */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void die(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    static char buffer[1 << 16], from[4096], to[4096], tmp[4096];
    if (argc != 4) {
        return 2;
    }
    for (int n = 0; n < atoi(argv[3]); n++) {
        snprintf(from, sizeof from, "%s/%d", argv[1], n);
        snprintf(to, sizeof to, "%s/%d", argv[2], n);
        snprintf(tmp, sizeof tmp, "%s/%d.tmp", argv[2], n);
        int in = open(from, O_RDONLY), out = open(tmp, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (in < 0 || out < 0) {
            die(from);
        }
        ssize_t got;
        while ((got = read(in, buffer, sizeof buffer)) > 0) {
            if (write(out, buffer, (size_t)got) != got) {
                die(tmp);
            }
        }
        if (got < 0 || fsync(out) < 0 || close(out) < 0 || close(in) < 0 || rename(tmp, to) < 0) {
            die(to);
        }
    }
    int directory = open(argv[2], O_RDONLY | O_DIRECTORY);
    if (directory < 0 || fsync(directory) < 0) {
        die(argv[2]);
    }
    return 0;
}
