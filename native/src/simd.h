/* What every SIMD kernel file shares.  Register tiles are arrays indexed in loops of constant length: EK_UNROLL makes
 * them registers at -O2 with GCC and clang alike. */
#ifndef EK_SIMD_H
#define EK_SIMD_H
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#define EK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define EK_UNROLL _Pragma("GCC unroll 64")
#endif
/* a function whose constant arguments (tile sizes) shape its code */
#define EK_INLINE static inline __attribute__((always_inline))

/* keeps a pointer in a register of its own: clang would add the row stride again and again in the inner loop */
#define EK_PIN(p) __asm__("" : "+r"(p))

/* GCC would start the loads of a whole loop body at once, and spill; clang pairs them */
#if defined(__clang__)
#define EK_GCC_IN_ORDER() ((void)0)
#else
#define EK_GCC_IN_ORDER() __asm__ volatile("" : : : "memory")
#endif

static inline int32_t ek_load_s32(const void *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4); /* -ffreestanding would call memcpy */
    return v;
}

/* bytes of one block of int8 weights: bias, scale, ceil(k / kr) * kr * nr elements */
static inline size_t ek_block_s8(uint32_t nr, uint32_t kr, uint32_t k)
{
    return (size_t)nr * 8 + ((size_t)k + kr - 1) / kr * kr * nr;
}
#endif
