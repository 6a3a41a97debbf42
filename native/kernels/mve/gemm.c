#if defined(__ARM_FEATURE_MVE)
#include "kernels.h"

void ek_kernels_mve(ek_kernels *k)
{
    (void)k;
}
#else
typedef int ek_no_mve; /* a translation unit must not be empty */
#endif
