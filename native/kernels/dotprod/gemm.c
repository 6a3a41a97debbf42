#if defined(__aarch64__)
#include "kernels.h"

void ek_kernels_dotprod(ek_kernels *k)
{
    (void)k;
}
#else
typedef int ek_no_dotprod; /* a translation unit must not be empty */
#endif
