#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "kernels.h"

void ek_kernels_dsp(ek_kernels *k)
{
    (void)k;
}
#else
typedef int ek_no_dsp; /* a translation unit must not be empty */
#endif
