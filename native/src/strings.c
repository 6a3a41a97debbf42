/* Sentences for people; EK_NO_STRINGS leaves them out (about 2 KB). */
#include "kernels.h"
#include "edgekit.h"

#ifdef EK_NO_STRINGS
const char *ek_strerror(ek_status s) { (void)s; return ""; }
#else
const char *ek_strerror(ek_status s)
{
    static const char *const text[] = {
        "no error",
        "argument: a pointer is null, an index is out of range or ek_config has another size; check the call",
        "alignment: the package or a memory is not aligned; align the package to EK_ALIGN_PACKAGE, memories to EK_ALIGN_MEMORY",
        "magic: this is not an EdgeKit package; give a .ekp file written by `edgekit build`",
        "version: the package was made for another major version; rebuild it or update the runtime",
        "feature: the package needs a feature that this runtime does not have; update the runtime",
        "truncated: the package is shorter than its header says; copy it again",
        "crc: a checksum differs, the package was damaged; copy it again",
        "structure: a table, offset or count of the package is out of range; the file was damaged or not written by EdgeKit",
        "tensor: a tensor's shape, type or place is not valid; the file was damaged or not written by EdgeKit",
        "op: an op's attributes or operands are not valid; the file was damaged or not written by EdgeKit",
        "op missing: this build does not contain the op; link it or use the full op list",
        "memory: a memory given to ek_open is smaller than ek_arena_size says; give more",
        "name: no entry, input, output or tensor has this name",
        "value: a run-time index or dimension is out of range",
        "cancelled: the caller's hook asked to stop",
        "self-test: the golden vector gives other values here; the package, the memory or the build is faulty",
        "signature: the package's signature is missing or wrong",
        "rollback: the package is older than this device allows",
    };
    unsigned c = EK_CODE(s);
    return c < sizeof text / sizeof *text ? text[c] : "unknown status";
}
#endif
