/* What this build leaves out; found by native/src/kernels.h.  Written by `edgekit build --format c`. */
#define EK_NO_OP_LIST          /* ek_config.ops must name the ops, as @name@_config does */
#define EK_SLOTS @slots@u      /* kernels the ops of @name@ use: bits (1 << EK_K_*) */
#define EK_NARROW @narrow@            /* weights of 4 or 2 bits */
#define EK_UNPACK @unpack@            /* constants unpacked into the session's memory */
#define EK_W_ZERO @w_zero@            /* weights with a zero point */
#ifndef EK_SIGNATURE
#define EK_NO_SIGNATURE        /* ek_verify refuses every key; define EK_SIGNATURE for about 5 KB of Ed25519 */
#endif
#ifndef EK_SENTENCES
#define EK_NO_STRINGS          /* ek_strerror gives ""; define EK_SENTENCES for about 2 KB of sentences */
#endif
@own@