/* Made by edgekit/wire_gen.py from edgekit/wire.py: do not edit. */

#include "wire.h"

static const ek_wire_field fields_hello[] = {
    {offsetof(ek_msg_hello, session), EK_FIELD_U64, 8},
    {offsetof(ek_msg_hello, nonce), EK_FIELD_BYTES, 16},
    {offsetof(ek_msg_hello, max_body), EK_FIELD_U32, 4},
    {offsetof(ek_msg_hello, flags), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_hello = {fields_hello, 32, 0, 0, 4, 0};

static const ek_wire_field fields_hello_ack[] = {
    {offsetof(ek_msg_hello_ack, boot), EK_FIELD_U64, 8},
    {offsetof(ek_msg_hello_ack, nonce), EK_FIELD_BYTES, 16},
    {offsetof(ek_msg_hello_ack, uid), EK_FIELD_BYTES, 16},
    {offsetof(ek_msg_hello_ack, clock_hz), EK_FIELD_U64, 8},
    {offsetof(ek_msg_hello_ack, max_body), EK_FIELD_U32, 4},
    {offsetof(ek_msg_hello_ack, window), EK_FIELD_U32, 4},
    {offsetof(ek_msg_hello_ack, caps), EK_FIELD_U32, 4},
    {offsetof(ek_msg_hello_ack, clock_kind), EK_FIELD_U8, 1},
    {offsetof(ek_msg_hello_ack, auth), EK_FIELD_U8, 1},
    {offsetof(ek_msg_hello_ack, agent), EK_FIELD_U8, 1},
    {offsetof(ek_msg_hello_ack, reserved), EK_FIELD_U8, 1},
    {offsetof(ek_msg_hello_ack, name), EK_FIELD_BYTES, 32},
    {offsetof(ek_msg_hello_ack, firmware), EK_FIELD_BYTES, 32}
};
const ek_wire_layout ek_layout_hello_ack = {fields_hello_ack, 128, 0, 0, 13, 0};

static const ek_wire_field fields_sync[] = {
    {offsetof(ek_msg_sync, t1), EK_FIELD_U64, 8}
};
const ek_wire_layout ek_layout_sync = {fields_sync, 8, 0, 0, 1, 0};

static const ek_wire_field fields_sync_reply[] = {
    {offsetof(ek_msg_sync_reply, t1), EK_FIELD_U64, 8},
    {offsetof(ek_msg_sync_reply, t2), EK_FIELD_U64, 8},
    {offsetof(ek_msg_sync_reply, t3), EK_FIELD_U64, 8}
};
const ek_wire_layout ek_layout_sync_reply = {fields_sync_reply, 24, 0, 0, 3, 0};

static const ek_wire_field fields_ack[] = {
    {offsetof(ek_msg_ack, stream), EK_FIELD_U16, 2},
    {offsetof(ek_msg_ack, flags), EK_FIELD_U16, 2},
    {offsetof(ek_msg_ack, seq), EK_FIELD_U32, 4},
    {offsetof(ek_msg_ack, bitmap), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_ack = {fields_ack, 12, 0, 0, 4, 0};

static const ek_wire_field fields_error[] = {
    {offsetof(ek_msg_error, code), EK_FIELD_U16, 2},
    {offsetof(ek_msg_error, type), EK_FIELD_U16, 2}
};
const ek_wire_layout ek_layout_error = {fields_error, 4, 1, offsetof(ek_msg_error, text), 2, 0};

static const ek_wire_field fields_log[] = {
    {offsetof(ek_msg_log, level), EK_FIELD_U16, 2}
};
const ek_wire_layout ek_layout_log = {fields_log, 2, 1, offsetof(ek_msg_log, text), 1, 0};

static const ek_wire_field fields_auth[] = {
    {offsetof(ek_msg_auth, proof), EK_FIELD_BYTES, 32}
};
const ek_wire_layout ek_layout_auth = {fields_auth, 32, 0, 0, 1, 0};

static const ek_wire_field fields_auth_ack[] = {
    {offsetof(ek_msg_auth_ack, proof), EK_FIELD_BYTES, 32}
};
const ek_wire_layout ek_layout_auth_ack = {fields_auth_ack, 32, 0, 0, 1, 0};

static const ek_wire_field fields_channel_desc[] = {
    {offsetof(ek_msg_channel_desc, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_channel_desc, channel), EK_FIELD_U16, 2},
    {offsetof(ek_msg_channel_desc, kind), EK_FIELD_U8, 1},
    {offsetof(ek_msg_channel_desc, quality), EK_FIELD_U8, 1},
    {offsetof(ek_msg_channel_desc, unit), EK_FIELD_U8, 1},
    {offsetof(ek_msg_channel_desc, reserved), EK_FIELD_U8, 1},
    {offsetof(ek_msg_channel_desc, reserved2), EK_FIELD_U16, 2},
    {offsetof(ek_msg_channel_desc, rate_mhz), EK_FIELD_U32, 4},
    {offsetof(ek_msg_channel_desc, name), EK_FIELD_BYTES, 32},
    {offsetof(ek_msg_channel_desc, site), EK_FIELD_BYTES, 32},
    {offsetof(ek_msg_channel_desc, reason), EK_FIELD_BYTES, 96}
};
const ek_wire_layout ek_layout_channel_desc = {fields_channel_desc, 176, 0, 0, 11, 0};

static const ek_wire_field fields_samples[] = {
    {offsetof(ek_msg_samples, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_samples, channel), EK_FIELD_U16, 2},
    {offsetof(ek_msg_samples, item), EK_FIELD_U8, 1},
    {offsetof(ek_msg_samples, quality), EK_FIELD_U8, 1},
    {offsetof(ek_msg_samples, first), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_samples = {fields_samples, 12, 8, offsetof(ek_msg_samples, values), 5, 0};

static const ek_wire_field fields_counter[] = {
    {offsetof(ek_msg_counter, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_counter, channel), EK_FIELD_U16, 2},
    {offsetof(ek_msg_counter, quality), EK_FIELD_U8, 1},
    {offsetof(ek_msg_counter, unit), EK_FIELD_U8, 1},
    {offsetof(ek_msg_counter, value), EK_FIELD_U64, 8}
};
const ek_wire_layout ek_layout_counter = {fields_counter, 16, 0, 0, 5, 0};

static const ek_wire_field fields_mark[] = {
    {offsetof(ek_msg_mark, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_mark, id), EK_FIELD_U16, 2},
    {offsetof(ek_msg_mark, kind), EK_FIELD_U16, 2},
    {offsetof(ek_msg_mark, arg), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_mark = {fields_mark, 12, 0, 0, 4, 0};

static const ek_wire_field fields_op_trace[] = {
    {offsetof(ek_msg_op_trace, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_op_trace, index), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_op_trace = {fields_op_trace, 8, 12, offsetof(ek_msg_op_trace, items), 2, 0};

static const ek_wire_field fields_metric[] = {
    {offsetof(ek_msg_metric, run), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_metric = {fields_metric, 4, 12, offsetof(ek_msg_metric, items), 1, 0};

static const ek_wire_field fields_gap[] = {
    {offsetof(ek_msg_gap, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_gap, channel), EK_FIELD_U16, 2},
    {offsetof(ek_msg_gap, reason), EK_FIELD_U16, 2},
    {offsetof(ek_msg_gap, first), EK_FIELD_U64, 8},
    {offsetof(ek_msg_gap, count), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_gap = {fields_gap, 20, 0, 0, 5, 0};

static const ek_wire_field fields_run_end[] = {
    {offsetof(ek_msg_run_end, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_run_end, code), EK_FIELD_U16, 2},
    {offsetof(ek_msg_run_end, reserved), EK_FIELD_U16, 2},
    {offsetof(ek_msg_run_end, status), EK_FIELD_U32, 4},
    {offsetof(ek_msg_run_end, runs), EK_FIELD_U32, 4},
    {offsetof(ek_msg_run_end, traced), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_run_end = {fields_run_end, 20, 1, offsetof(ek_msg_run_end, text), 6, 0};

static const ek_wire_field fields_cmd[] = {
    {offsetof(ek_msg_cmd, ctr), EK_FIELD_U32, 4},
    {offsetof(ek_msg_cmd, op), EK_FIELD_U16, 2},
    {offsetof(ek_msg_cmd, entry), EK_FIELD_U16, 2},
    {offsetof(ek_msg_cmd, index), EK_FIELD_U32, 4},
    {offsetof(ek_msg_cmd, offset), EK_FIELD_U32, 4},
    {offsetof(ek_msg_cmd, count), EK_FIELD_U32, 4},
    {offsetof(ek_msg_cmd, flags), EK_FIELD_U32, 4},
    {offsetof(ek_msg_cmd, run), EK_FIELD_U32, 4},
    {offsetof(ek_msg_cmd, limit_ms), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_cmd = {fields_cmd, 32, 1, offsetof(ek_msg_cmd, data), 9, 0};

static const ek_wire_field fields_result[] = {
    {offsetof(ek_msg_result, ctr), EK_FIELD_U32, 4},
    {offsetof(ek_msg_result, op), EK_FIELD_U16, 2},
    {offsetof(ek_msg_result, code), EK_FIELD_U16, 2},
    {offsetof(ek_msg_result, status), EK_FIELD_U32, 4},
    {offsetof(ek_msg_result, offset), EK_FIELD_U32, 4},
    {offsetof(ek_msg_result, total), EK_FIELD_U32, 4},
    {offsetof(ek_msg_result, flags), EK_FIELD_U32, 4},
    {offsetof(ek_msg_result, value), EK_FIELD_U64, 8}
};
const ek_wire_layout ek_layout_result = {fields_result, 32, 1, offsetof(ek_msg_result, data), 8, 0};

static const ek_wire_field fields_xfer_begin[] = {
    {offsetof(ek_msg_xfer_begin, sha256), EK_FIELD_BYTES, 32},
    {offsetof(ek_msg_xfer_begin, size), EK_FIELD_U64, 8},
    {offsetof(ek_msg_xfer_begin, kind), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_xfer_begin = {fields_xfer_begin, 44, 0, 0, 3, 0};

static const ek_wire_field fields_xfer_data[] = {
    {offsetof(ek_msg_xfer_data, id), EK_FIELD_U32, 4},
    {offsetof(ek_msg_xfer_data, reserved), EK_FIELD_U32, 4},
    {offsetof(ek_msg_xfer_data, offset), EK_FIELD_U64, 8}
};
const ek_wire_layout ek_layout_xfer_data = {fields_xfer_data, 16, 1, offsetof(ek_msg_xfer_data, data), 3, 0};

static const ek_wire_field fields_xfer_ack[] = {
    {offsetof(ek_msg_xfer_ack, id), EK_FIELD_U32, 4},
    {offsetof(ek_msg_xfer_ack, code), EK_FIELD_U16, 2},
    {offsetof(ek_msg_xfer_ack, done), EK_FIELD_U16, 2},
    {offsetof(ek_msg_xfer_ack, offset), EK_FIELD_U64, 8},
    {offsetof(ek_msg_xfer_ack, window), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_xfer_ack = {fields_xfer_ack, 20, 1, offsetof(ek_msg_xfer_ack, text), 5, 0};

static const ek_wire_field fields_xfer_end[] = {
    {offsetof(ek_msg_xfer_end, id), EK_FIELD_U32, 4},
    {offsetof(ek_msg_xfer_end, reserved), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_xfer_end = {fields_xfer_end, 8, 0, 0, 2, 0};

static const ek_wire_field fields_bye[] = {
    {offsetof(ek_msg_bye, reason), EK_FIELD_U16, 2}
};
const ek_wire_layout ek_layout_bye = {fields_bye, 2, 1, offsetof(ek_msg_bye, text), 1, 0};

static const ek_wire_field fields_op_time[] = {
    {offsetof(ek_msg_op_time, op), EK_FIELD_U16, 2},
    {offsetof(ek_msg_op_time, flags), EK_FIELD_U16, 2},
    {offsetof(ek_msg_op_time, start), EK_FIELD_U32, 4},
    {offsetof(ek_msg_op_time, duration), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_op_time = {fields_op_time, 12, 0, 0, 4, 0};

static const ek_wire_field fields_reading[] = {
    {offsetof(ek_msg_reading, channel), EK_FIELD_U16, 2},
    {offsetof(ek_msg_reading, quality), EK_FIELD_U8, 1},
    {offsetof(ek_msg_reading, unit), EK_FIELD_U8, 1},
    {offsetof(ek_msg_reading, value), EK_FIELD_U64, 8}
};
const ek_wire_layout ek_layout_reading = {fields_reading, 12, 0, 0, 4, 0};

static const ek_wire_field fields_package_info[] = {
    {offsetof(ek_msg_package_info, entries), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, ops), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, tensors), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, goldens), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, package_bytes), EK_FIELD_U64, 8},
    {offsetof(ek_msg_package_info, mem_session), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, mem_main), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, mem_fast), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, mem_state), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, mem_scratch), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, cpu), EK_FIELD_U32, 4},
    {offsetof(ek_msg_package_info, flags), EK_FIELD_U32, 4}
};
const ek_wire_layout ek_layout_package_info = {fields_package_info, 52, 0, 0, 12, 0};

static const ek_wire_field fields_entry_info[] = {
    {offsetof(ek_msg_entry_info, inputs), EK_FIELD_U32, 4},
    {offsetof(ek_msg_entry_info, outputs), EK_FIELD_U32, 4},
    {offsetof(ek_msg_entry_info, name), EK_FIELD_BYTES, 96}
};
const ek_wire_layout ek_layout_entry_info = {fields_entry_info, 104, 0, 0, 3, 0};

static const ek_wire_field fields_tensor_info[] = {
    {offsetof(ek_msg_tensor_info, bytes), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim0), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim1), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim2), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim3), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim4), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim5), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim6), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, dim7), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, rank), EK_FIELD_U8, 1},
    {offsetof(ek_msg_tensor_info, dtype), EK_FIELD_U8, 1},
    {offsetof(ek_msg_tensor_info, quantized), EK_FIELD_U8, 1},
    {offsetof(ek_msg_tensor_info, reserved), EK_FIELD_U8, 1},
    {offsetof(ek_msg_tensor_info, scale), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, zero), EK_FIELD_U32, 4},
    {offsetof(ek_msg_tensor_info, name), EK_FIELD_BYTES, 96}
};
const ek_wire_layout ek_layout_tensor_info = {fields_tensor_info, 144, 0, 0, 16, 0};

static const ek_wire_field fields_op_info[] = {
    {offsetof(ek_msg_op_info, entry), EK_FIELD_U32, 4},
    {offsetof(ek_msg_op_info, version), EK_FIELD_U32, 4},
    {offsetof(ek_msg_op_info, exact), EK_FIELD_U32, 4},
    {offsetof(ek_msg_op_info, output), EK_FIELD_U32, 4},
    {offsetof(ek_msg_op_info, type), EK_FIELD_BYTES, 32},
    {offsetof(ek_msg_op_info, isa), EK_FIELD_BYTES, 32},
    {offsetof(ek_msg_op_info, name), EK_FIELD_BYTES, 96}
};
const ek_wire_layout ek_layout_op_info = {fields_op_info, 176, 0, 0, 7, 0};
