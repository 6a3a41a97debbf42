/* The ops of @name@ and where its memory lies.  Written by `edgekit build --format c`. */
#include "@name@.h"
#include "oplist.h"
#include "session.h"

_Static_assert(@NAME@_SESSION_BYTES == EK_SESSION_BYTES(@count@u) + @unpacked@u,
               "the session has another size on this core");

@yours@const ek_op_def *const @name@_ops[] = {
@ops@    0,
};

void @name@_config(ek_config *c, void *memory)
{
    static const size_t bytes[EK_MEM_KINDS] = { @NAME@_SESSION_BYTES, @NAME@_MAIN_BYTES, @NAME@_FAST_BYTES,
                                                @NAME@_STATE_BYTES, @NAME@_SCRATCH_BYTES };
    uint8_t *at = (uint8_t *)memory;
    *c = (ek_config)EK_CONFIG_INIT;
    c->package = @name@_package;
    c->package_len = @NAME@_PACKAGE_BYTES;
    c->ops = @name@_ops;
    for (int i = 0; i < EK_MEM_KINDS; i++) {
        c->mem[i] = bytes[i] ? at : 0;
        c->mem_len[i] = bytes[i];
        at += bytes[i];
    }
}
