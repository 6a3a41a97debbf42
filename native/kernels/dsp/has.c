#if defined(__ARM_FEATURE_DSP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#include "isas.h"

int ek_has_dsp(void) { return 1; } /* this file is compiled only for cores that have it */
#else
typedef int ek_no_dsp_has; /* a translation unit must not be empty */
#endif
