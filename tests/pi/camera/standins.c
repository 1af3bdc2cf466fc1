/* Preloaded into Python in the chroot, in place of what a machine without a Raspberry Pi's kernel lacks.
 *
 * /dev/dma_heap: a "dma-buf" is a memfd.
 *
 * A sensor's pace: the virtual camera finishes requests as fast as it gets them. libcamera's Python part tells of each
 * by an eventfd, and that write takes camera_period_us.
 *
 * A loose cable: with camera_silent = 1 those writes are lost; the camera takes requests and hands none back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

volatile int camera_silent;
volatile int camera_period_us = 33333;

static int is_heap(const char *path) { return path && !strncmp(path, "/dev/dma_heap/", 14); }

#define WRAP_OPEN(name)                                                      \
    int name(const char *path, int flags, ...) {                             \
        static int (*real)(const char *, int, ...);                          \
        va_list rest;                                                        \
        va_start(rest, flags);                                               \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                        \
        if (is_heap(path)) return memfd_create("heap", MFD_CLOEXEC);         \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        return real(path, flags, mode);                                      \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)

int ioctl(int fd, unsigned long request, ...) {
    static int (*real)(int, unsigned long, ...);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (request == DMA_HEAP_IOCTL_ALLOC) {
        struct dma_heap_allocation_data *wanted = argument;
        int memory = memfd_create("dma-buf", MFD_CLOEXEC);
        if (memory < 0 || ftruncate(memory, wanted->len)) return -1;
        wanted->fd = memory;
        return 0;
    }
    if (request == DMA_BUF_IOCTL_SYNC || request == DMA_BUF_SET_NAME || request == DMA_BUF_SET_NAME_A ||
        request == DMA_BUF_SET_NAME_B)
        return 0;
    if (!real) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    return real(fd, request, argument);
}

ssize_t write(int fd, const void *data, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    Dl_info caller;
    if (count != 8 || !dladdr(__builtin_return_address(0), &caller) || !caller.dli_fname ||
        !strstr(caller.dli_fname, "_libcamera."))
        return real(fd, data, count);
    ssize_t done = camera_silent ? 8 : real(fd, data, count);
    usleep(camera_period_us);
    return done;
}
