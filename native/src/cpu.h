/* Questions to the CPU, for ek_has_<isa>() in native/kernels/<isa>/has.c. */
#ifndef EK_CPU_H
#define EK_CPU_H
#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>
enum { EK_EBX, EK_ECX };

/* a bit of CPUID leaf 1 or 7 (subleaf 0) */
static inline int ek_x86(uint32_t leaf, unsigned reg, unsigned bit)
{
    uint32_t a, b, c, d;
    return __get_cpuid_count(leaf, 0, &a, &b, &c, &d) && ((reg == EK_EBX ? b : c) >> bit & 1u);
}

/* whether the system saves these register states (XCR0): 6 for AVX, 0xe6 for AVX-512 */
static inline int ek_x86_saves(uint32_t states)
{
    uint32_t lo, hi;
    if (!ek_x86(1, EK_ECX, 27))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (lo & states) == states;
}
#endif

#if defined(__aarch64__) && defined(__linux__)
unsigned long getauxval(unsigned long type);
enum { EK_HWCAP = 16, EK_HWCAP2 = 26 };

/* the kernel names features that all cores have */
static inline int ek_hwcap(unsigned type, unsigned bit) { return getauxval(type) >> bit & 1u; }
#endif
#endif
