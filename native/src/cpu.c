/* Which ISAs this CPU and this build have, as bits (1 << EK_ISA_*).  Hosted systems ask the CPU or the kernel
 * (getauxval gives the features common to all cores); a microcontroller's are fixed when it is compiled. */
#include "edgekit.h"
#include "isas.h"

#if defined(__x86_64__)
#include <cpuid.h>
static uint64_t xgetbv(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

uint32_t ek_cpu(void)
{
    uint32_t a, b, c, d, bits = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1))
        return 0;
    uint64_t x = xgetbv();
    int fma = c >> 12 & 1;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    if ((x & 6) == 6 && (b >> 5 & 1) && fma)
        bits |= 1u << EK_ISA_AVX2;
    /* F, DQ, BW, VL and VNNI */
    if ((x & 0xe6) == 0xe6 && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1) && (c >> 11 & 1) && fma)
        bits |= 1u << EK_ISA_AVX512VNNI;
    return bits;
}
#elif defined(__aarch64__)
#if defined(__linux__)
unsigned long getauxval(unsigned long);
uint32_t ek_cpu(void)
{
    uint32_t bits = 1u << EK_ISA_NEON;
    if (getauxval(16) >> 20 & 1)
        bits |= 1u << EK_ISA_DOTPROD;
    if (getauxval(26) >> 13 & 1)
        bits |= 1u << EK_ISA_I8MM;
    return bits;
}
#else
uint32_t ek_cpu(void)
{
    uint32_t bits = 1u << EK_ISA_NEON;
#if defined(__ARM_FEATURE_DOTPROD) || defined(__APPLE__) /* every Apple arm64 Mac has it */
    bits |= 1u << EK_ISA_DOTPROD;
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
    bits |= 1u << EK_ISA_I8MM;
#endif
    return bits;
}
#endif
#else
uint32_t ek_cpu(void)
{
    uint32_t bits = 0;
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
    bits |= 1u << EK_ISA_DSP;
#endif
#if defined(__ARM_FEATURE_MVE)
    bits |= 1u << EK_ISA_MVE;
#endif
    return bits;
}
#endif
