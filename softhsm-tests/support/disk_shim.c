/* Makes the disk of one process fail: the word in the file named by DISK_FAULT_FILE says how.
 * `sync-fails`: fdatasync does nothing and returns EIO. `sync-fails-after`: it does its work and
 * returns EIO. `read-only`: write does nothing and returns EROFS. `write-fails-after`: write puts the bytes in the file and returns EIO, for files
 * opened by the preloaded process whose path ends with audit.log. Preloaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fault(const char *word) {
    const char *path = getenv("DISK_FAULT_FILE");
    char text[32] = {0};
    int file = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return length > 0 && strcmp(text, word) == 0;
}

static int is_trail(int fd) {
    char link[64], path[4096] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 9 && strcmp(path + length - 9, "audit.log") == 0;
}

int fdatasync(int fd) {
    if (is_trail(fd) && fault("sync-fails")) {
        errno = EIO;
        return -1;
    }
    long result = syscall(SYS_fdatasync, fd);
    if (result == 0 && is_trail(fd) && fault("sync-fails-after")) {
        errno = EIO;
        return -1;
    }
    return (int)result;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (fd > 2 && is_trail(fd) && fault("read-only")) {
        errno = EROFS;
        return -1;
    }
    int failing = fd > 2 && is_trail(fd) && fault("write-fails-after");
    ssize_t result = syscall(SYS_write, fd, bytes, count);
    if (failing && result >= 0) {
        errno = EIO;
        return -1;
    }
    return result;
}
