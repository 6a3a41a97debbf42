#if defined(__aarch64__)
#include "cpu.h"
#include "isas.h"

#if defined(__linux__)
int ek_has_i8mm(void) { return ek_hwcap(EK_HWCAP2, 13) && ek_hwcap(EK_HWCAP, 20); } /* its kernels use SDOT too */
#elif defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_DOTPROD)
int ek_has_i8mm(void) { return 1; }
#else
int ek_has_i8mm(void) { return 0; }
#endif
#else
typedef int ek_no_i8mm_has; /* a translation unit must not be empty */
#endif
