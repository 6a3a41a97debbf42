/* Arm semihosting: the debugger or emulator does what an operating system would. */
#include "port.h"

enum {
    SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE0 = 0x04, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_FLEN = 0x0c,
    SYS_EXIT_EXTENDED = 0x20, ADP_STOPPED_APPLICATION_EXIT = 0x20026
};

static long call(uint32_t op, const void *arg)
{
    register uint32_t r0 __asm__("r0") = op;
    register const void *r1 __asm__("r1") = arg;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (long)r0;
}

void ek_port_print(const char *text) { call(SYS_WRITE0, text); }

void ek_port_print_u32(uint32_t value)
{
    char text[11];
    unsigned i = sizeof text;
    text[--i] = 0;
    do text[--i] = (char)('0' + value % 10);
    while (value /= 10);
    ek_port_print(text + i);
}

void ek_port_exit(int code)
{
    const uint32_t block[2] = { ADP_STOPPED_APPLICATION_EXIT, (uint32_t)code };
    call(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}

int ek_port_open(const char *path, int mode)
{
    uint32_t len = 0;
    while (path[len]) len++;
    const uint32_t block[3] = { (uint32_t)(uintptr_t)path, (uint32_t)mode, len };
    return (int)call(SYS_OPEN, block);
}

long ek_port_length(int file)
{
    const uint32_t block[1] = { (uint32_t)file };
    return call(SYS_FLEN, block);
}

/* Both calls answer with the number of bytes that were not transferred. */
int ek_port_read(int file, void *to, size_t len)
{
    const uint32_t block[3] = { (uint32_t)file, (uint32_t)(uintptr_t)to, (uint32_t)len };
    return call(SYS_READ, block) == 0;
}

int ek_port_write(int file, const void *from, size_t len)
{
    const uint32_t block[3] = { (uint32_t)file, (uint32_t)(uintptr_t)from, (uint32_t)len };
    return call(SYS_WRITE, block) == 0;
}

void ek_port_close(int file)
{
    const uint32_t block[1] = { (uint32_t)file };
    call(SYS_CLOSE, block);
}
