/* Checks the bare-metal port on the (emulated) board itself: exit code 0, or the number of the check. */
#include "marker.h"
#include "port.h"
#include <string.h>

static volatile uint32_t initialised = 0x12345678u, zeroed;

static int copies(void)
{
    static uint8_t a[96], b[96];
    for (unsigned from = 0; from < 8; from++)
        for (unsigned to = 0; to < 8; to++)
            for (unsigned n = 0; n < 70; n++) {
                for (unsigned i = 0; i < sizeof a; i++) a[i] = (uint8_t)(i * 7u + n), b[i] = 0xee;
                memcpy(b + to, a + from, n);
                for (unsigned i = 0; i < sizeof b; i++)
                    if (b[i] != (i >= to && i < to + n ? a[i - to + from] : 0xee)) return 1;
                for (unsigned i = 0; i < sizeof a; i++) b[i] = a[i];
                memmove(b + to, b + from, n); /* overlapping */
                for (unsigned i = 0; i < sizeof b; i++)
                    if (b[i] != (i >= to && i < to + n ? a[i - to + from] : a[i])) return 2;
                memset(b + to, (int)n, n);
                for (unsigned i = to; i < to + n; i++)
                    if (b[i] != n) return 3;
            }
    for (unsigned i = 0; i < sizeof a; i++) b[i] = a[i];
    if (memcmp(a, b, sizeof a)) return 4;
    b[95] ^= 0x80;
    return memcmp(a, b, 95) || (memcmp(a, b, 96) < 0) == (a[95] > b[95]) ? 5 : 0;
}

static int usable(ek_range r)
{
    volatile uint32_t *first = (volatile uint32_t *)(uintptr_t)r.base, *last = first + r.size / 4 - 1;
    if (!r.size) return 1;
    *first = 1u;
    *last = 2u;
    return *first == 1u && *last == 2u;
}

int main(void)
{
    int failed = copies();
    if (failed) return failed;
    if (initialised != 0x12345678u || zeroed) return 10;
    if (!usable(ek_port_heap()) || !usable(ek_port_fast())) return 11;
    if (ek_port_stack_used() < 32 || ek_port_stack_used() > 4096) return 12;
    if (ek_package_size && ek_package[0] != 'P') return 13;
    volatile float x = 1.5f;
    if (x * 2.25f != 3.375f) return 14;
    ek_port_clock_start();
    uint64_t begin = ek_port_clock(0);
    EK_MARK(EK_MARK_BEGIN);
    __asm__ volatile("mov r3, #1000\n1: subs r3, r3, #1\n bne 1b" ::: "r3", "cc"); /* 2001 instructions */
    EK_MARK(EK_MARK_END);
    /* 3 instructions for each pass; enough passes for SysTick to wrap */
    __asm__ volatile("ldr r3, =10000000\n1: subs r3, r3, #1\n nop\n bne 1b\n b 2f\n .ltorg\n2:" ::: "r3", "cc");
    uint64_t counted = ek_port_clock(0) - begin;
    ek_port_print("counted ");
    ek_port_print_u32((uint32_t)counted);
    ek_port_print("\npackage ");
    ek_port_print_u32(ek_package_size);
    ek_port_print("\n");
    return 0;
}
