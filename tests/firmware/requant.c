/* Counts the instructions of requantization: 1024 outputs between the marks, after a loop that only loads and stores
 * as many; and the outputs' sum to compare. */
#include "port.h"
#include "qmath.h"

#if !defined(__clang__)
#pragma GCC optimize("O2") /* as kernels are compiled */
#endif
/* marker.h's HINT, also where the compiler knows only Thumb-1: the emulated core knows all */
#define MARK(n) __asm__ volatile(".short 0xf3af, 0x8000 + %c0" ::"i"(n) : "memory")

static int32_t acc[1024];
static float scale[64];
static int8_t out[1024];

int main(void)
{
    uint32_t s = 1, sum = 0;
    for (unsigned i = 0; i < 1024; i++) {
        s = s * 1664525u + 1013904223u;
        acc[i] = (int32_t)s >> 14;
        scale[i % 64] = 0.001f + (float)(s >> 24) * 0.00002f;
    }
    MARK(96);
    for (unsigned i = 0; i < 1024; i++) {
        uint32_t bits;
        memcpy(&bits, &scale[i % 64], 4);
        out[i] = (int8_t)((uint32_t)acc[i] + bits);
    }
    MARK(98);
    MARK(96);
    for (unsigned i = 0; i < 1024; i++) out[i] = ek_requant(acc[i], scale[i % 64], -100, 155, -28);
    MARK(98);
    for (unsigned i = 0; i < 1024; i++) sum = sum * 31u + (uint8_t)out[i];
    ek_port_print("sum ");
    ek_port_print_u32(sum);
    ek_port_print("\n");
    return 0;
}
