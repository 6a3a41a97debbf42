#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include "isas.h"

int ek_has_mve(void) { return 1; } /* this file is compiled only for cores that have it */
#else
typedef int ek_no_mve_has; /* a translation unit must not be empty */
#endif
