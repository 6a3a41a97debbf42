/* The four functions that the runtime needs from a C library, for builds without one.
 *
 * The empty asm keeps the compiler from turning a loop back into a call of the function it is in.
 * Words are copied where both addresses are aligned alike, on cores that load across words always.  With Helium the
 * loops are tail-predicated: 16 bytes a pass, the last one partial. */
#include <stdint.h>
#include <string.h>
#undef memcpy
#undef memset

#define KEEP() __asm__ volatile("" ::: "memory")
#if defined(__ARM_FEATURE_UNALIGNED)
enum { ALIGN = 0 };
typedef uint32_t __attribute__((may_alias, aligned(1))) ek_word;
#else
enum { ALIGN = 3 };
typedef uint32_t __attribute__((may_alias)) ek_word;
#endif

#if defined(__ARM_FEATURE_MVE)
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    uint8_t *d = to;
    __asm__ volatile("wlstp.8 lr, %2, 2f\n"
                     "1:\tvldrb.8 q0, [%1], #16\n\tvstrb.8 q0, [%0], #16\n\tletp lr, 1b\n"
                     "2:"
                     : "+r"(d), "+r"(from) : "r"(n) : "lr", "q0", "memory");
    return to;
}

void *memset(void *to, int value, size_t n)
{
    uint8_t *d = to;
    __asm__ volatile("vdup.8 q0, %1\n\twlstp.8 lr, %2, 2f\n"
                     "1:\tvstrb.8 q0, [%0], #16\n\tletp lr, 1b\n"
                     "2:"
                     : "+r"(d) : "r"(value), "r"(n) : "lr", "q0", "memory");
    return to;
}
#else
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((((uintptr_t)d ^ (uintptr_t)s) & ALIGN) == 0) {
        for (; n && ((uintptr_t)d & ALIGN); n--) *d++ = *s++;
        for (; n >= 16; n -= 16, d += 16, s += 16) {
            ek_word a = ((const ek_word *)s)[0], b = ((const ek_word *)s)[1];
            ek_word c = ((const ek_word *)s)[2], e = ((const ek_word *)s)[3];
            ((ek_word *)d)[0] = a;
            ((ek_word *)d)[1] = b;
            ((ek_word *)d)[2] = c;
            ((ek_word *)d)[3] = e;
            KEEP();
        }
        for (; n >= 4; n -= 4, d += 4, s += 4) {
            *(ek_word *)d = *(const ek_word *)s;
            KEEP();
        }
    }
    for (; n; n--) {
        *d++ = *s++;
        KEEP();
    }
    return to;
}

void *memset(void *to, int value, size_t n)
{
    uint8_t *d = to;
    const ek_word word = (uint8_t)value * 0x01010101u;
    for (; n && ((uintptr_t)d & ALIGN); n--) *d++ = (uint8_t)value;
    for (; n >= 16; n -= 16, d += 16) {
        ((ek_word *)d)[0] = word;
        ((ek_word *)d)[1] = word;
        ((ek_word *)d)[2] = word;
        ((ek_word *)d)[3] = word;
        KEEP();
    }
    for (; n; n--) {
        *d++ = (uint8_t)value;
        KEEP();
    }
    return to;
}
#endif

void *memmove(void *to, const void *from, size_t n)
{
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((uintptr_t)d - (uintptr_t)s >= n) {
        /* forwards never reads what it has written: the target begins outside the source */
        for (; n; n--) {
            *d++ = *s++;
            KEEP();
        }
        return to;
    }
    while (n--) {
        d[n] = s[n];
        KEEP();
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *p = a, *q = b;
    for (; n; n--, p++, q++) {
        if (*p != *q) return *p < *q ? -1 : 1;
    }
    return 0;
}
