#if defined(__aarch64__)
#include "cpu.h"
#include "isas.h"

#if defined(__linux__)
int ek_has_dotprod(void) { return ek_hwcap(EK_HWCAP, 20); }
#elif defined(__ARM_FEATURE_DOTPROD) || defined(__APPLE__)
int ek_has_dotprod(void) { return 1; } /* every arm64 Mac has it */
#else
int ek_has_dotprod(void) { return 0; }
#endif
#else
typedef int ek_no_dotprod_has; /* a translation unit must not be empty */
#endif
