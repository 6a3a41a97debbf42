/* @name@ for EdgeKit: sizes, inputs and outputs, the package and its ops.  Written by `edgekit build --format c`.
 *
 *   static uint8_t memory[@NAME@_MEMORY_BYTES];       aligned to 16 bytes
 *   ek_config c;  ek_session *s;  ek_tensor in;
 *   @name@_config(&c, memory);  ek_open(&s, &c);  ek_input(s, 0, 0, &in); ... ek_run(s, 0);
 *
 * Re-entrant: one session with a memory of its own for each thread; none is global.  Not from an interrupt that can
 * preempt a call on the same session.  c.cancel is called between ops: yield there, return 0 to go on. */
#ifndef @NAME@_H
#define @NAME@_H
#include "edgekit.h"
#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_PACKAGE_BYTES @package@u
extern const uint8_t @name@_package[@NAME@_PACKAGE_BYTES]; /* aligned to 64 */
extern const ek_op_def *const @name@_ops[];                /* only these are linked */

/* Exact bytes of each kind of memory (one thread); every one a multiple of 16. */
#if UINTPTR_MAX > 0xffffffffu
#define @NAME@_SESSION_BYTES @session64@u
#else
#define @NAME@_SESSION_BYTES @session32@u
#endif
#define @NAME@_MAIN_BYTES @main@u    /* the arena */
#define @NAME@_FAST_BYTES @fast@u
#define @NAME@_STATE_BYTES @state@u   /* persists between runs */
#define @NAME@_SCRATCH_BYTES @scratch@u /* may be shared by sessions that never run at once */
#define @NAME@_MEMORY_BYTES \
    (@NAME@_SESSION_BYTES + @NAME@_MAIN_BYTES + @NAME@_FAST_BYTES + @NAME@_STATE_BYTES + @NAME@_SCRATCH_BYTES)

@ends@
/* All kinds of memory one after the other in `memory`, aligned to 16.  Change c->mem[] for other places. */
void @name@_config(ek_config *c, void *memory);

#ifdef __cplusplus
}
#endif
#endif
