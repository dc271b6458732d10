/* A slow disk. In a process that preloads this library, fdatasync first waits FDATASYNC_DELAY_US microseconds. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int descriptor) {
    const char *delay = getenv("FDATASYNC_DELAY_US");
    if (delay != NULL) usleep((useconds_t)atol(delay));
    return (int)syscall(SYS_fdatasync, descriptor);
}
