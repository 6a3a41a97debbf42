#if defined(__aarch64__)
#include "isas.h"

int ek_has_neon(void) { return 1; } /* every arm64 CPU has it */
#else
typedef int ek_no_neon_has; /* a translation unit must not be empty */
#endif
