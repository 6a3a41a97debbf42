#if defined(__aarch64__)
#include "kernels.h"

void ek_kernels_neon(ek_kernels *k)
{
    (void)k;
}
#else
typedef int ek_no_neon; /* a translation unit must not be empty */
#endif
