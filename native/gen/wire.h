/* Made by edgekit/wire_gen.py from edgekit/wire.py: do not edit. */

#ifndef EK_GEN_WIRE_H
#define EK_GEN_WIRE_H
#include <stddef.h>
#include <stdint.h>

#define EK_WIRE_VERSION 1u
#define EK_WIRE_OVERHEAD 20u /* header and CRC-32 of a frame */
#define EK_WIRE_MAX_BODY 65000u
#define EK_WIRE_MIN_BODY 240u
#define EK_WIRE_TEXT_MAX 96u
#define EK_STREAM_CONTROL 0u
#define EK_STREAM_RUN 1u
#define EK_CAP_RESIDENT 1u
#define EK_CAP_UPLOAD 2u
#define EK_CAP_EMULATED 4u
#define EK_ACK_RESEND 1u
#define EK_TRACE_SATURATED 1u

/* Where a number comes from. */
enum {
    EK_QUALITY_MEASURED = 1,
    EK_QUALITY_COUNTER = 2,
    EK_QUALITY_MODELLED = 3,
    EK_QUALITY_ESTIMATED = 4,
    EK_QUALITY_UNMEASURABLE = 5
};

/* Unit of a value on the wire. */
enum {
    EK_UNIT_NONE = 0,
    EK_UNIT_TICKS = 1,
    EK_UNIT_INSTRUCTIONS = 2,
    EK_UNIT_NS = 3,
    EK_UNIT_US = 4,
    EK_UNIT_BYTES = 5,
    EK_UNIT_MILLICELSIUS = 6,
    EK_UNIT_KHZ = 7,
    EK_UNIT_UW = 8,
    EK_UNIT_UJ = 9,
    EK_UNIT_UV = 10,
    EK_UNIT_UA = 11,
    EK_UNIT_COUNT = 12,
    EK_UNIT_PPM = 13
};

/* What a channel tells. */
enum {
    EK_KIND_LATENCY = 1,
    EK_KIND_MEMORY = 2,
    EK_KIND_STACK = 3,
    EK_KIND_TEMPERATURE = 4,
    EK_KIND_FREQUENCY = 5,
    EK_KIND_POWER = 6,
    EK_KIND_ENERGY = 7,
    EK_KIND_VOLTAGE = 8,
    EK_KIND_CURRENT = 9,
    EK_KIND_LOAD = 10
};

/* What one unit of the device's clock is; only TIME may be printed as microseconds. */
enum {
    EK_WIRE_CLOCK_NONE = 0,
    EK_WIRE_CLOCK_TIME = 1,
    EK_WIRE_CLOCK_INSTRUCTIONS = 2,
    EK_WIRE_CLOCK_TICKS = 3
};

/* Which implementation answers. */
enum {
    EK_AGENT_KIND_PYTHON = 0,
    EK_AGENT_KIND_POSIX = 1,
    EK_AGENT_KIND_MCU = 2
};

/* Why something was refused; `OK` otherwise. */
enum {
    EK_WIRE_CODE_OK = 0,
    EK_WIRE_CODE_STATUS = 1,
    EK_WIRE_CODE_BUSY = 2,
    EK_WIRE_CODE_UNKNOWN = 3,
    EK_WIRE_CODE_ARGUMENT = 4,
    EK_WIRE_CODE_NO_PACKAGE = 5,
    EK_WIRE_CODE_NO_SESSION = 6,
    EK_WIRE_CODE_TIMEOUT = 7,
    EK_WIRE_CODE_CRASHED = 8,
    EK_WIRE_CODE_NO_SPACE = 9,
    EK_WIRE_CODE_HASH = 10,
    EK_WIRE_CODE_AUTH = 11,
    EK_WIRE_CODE_CANCELLED = 12,
    EK_WIRE_CODE_NO_CLOCK = 13,
    EK_WIRE_CODE_INTERNAL = 14,
    EK_WIRE_CODE_VERSION = 15
};

/* Operations of `Cmd`; the fields each uses are in WIRE.md. */
enum {
    EK_CMD_OPEN = 1,
    EK_CMD_VERIFY = 2,
    EK_CMD_INFO = 3,
    EK_CMD_SET_INPUT = 4,
    EK_CMD_RUN = 5,
    EK_CMD_GET_OUTPUT = 6,
    EK_CMD_GET_TENSOR = 7,
    EK_CMD_BENCH = 8,
    EK_CMD_SELFTEST = 9,
    EK_CMD_RESET = 10,
    EK_CMD_CANCEL = 11,
    EK_CMD_CLOSE = 12
};

/* What INFO is asked for (`index`). */
enum {
    EK_INFO_PACKAGE = 1,
    EK_INFO_ENTRY = 2,
    EK_INFO_INPUT = 3,
    EK_INFO_OUTPUT = 4,
    EK_INFO_TENSOR = 5,
    EK_INFO_OP = 6
};

/* Channels with a fixed meaning; sensors are numbered from FIRST_SENSOR. */
enum {
    EK_CHANNEL_LATENCY = 1,
    EK_CHANNEL_OPEN = 2,
    EK_CHANNEL_FIRST = 3,
    EK_CHANNEL_PEAK_RSS = 4,
    EK_CHANNEL_STACK = 5,
    EK_CHANNEL_MEM_SESSION = 6,
    EK_CHANNEL_MEM_MAIN = 7,
    EK_CHANNEL_MEM_FAST = 8,
    EK_CHANNEL_MEM_STATE = 9,
    EK_CHANNEL_MEM_SCRATCH = 10,
    EK_CHANNEL_FIRST_SENSOR = 16
};

/* Why readings are missing. */
enum {
    EK_GAP_OVERRUN = 1,
    EK_GAP_WRAP_UNKNOWN = 2,
    EK_GAP_READ_FAILED = 3,
    EK_GAP_POLICY = 4
};

/* Which package OPEN and VERIFY mean. */
enum {
    EK_SOURCE_UPLOADED = 0,
    EK_SOURCE_RESIDENT = 1
};

/* Type numbers of messages. */
enum {
    EK_MSG_HELLO = 0x00,
    EK_MSG_HELLO_ACK = 0x01,
    EK_MSG_SYNC = 0x02,
    EK_MSG_SYNC_REPLY = 0x03,
    EK_MSG_ACK = 0x04,
    EK_MSG_ERROR = 0x06,
    EK_MSG_LOG = 0x07,
    EK_MSG_AUTH = 0x08,
    EK_MSG_AUTH_ACK = 0x09,
    EK_MSG_CHANNEL_DESC = 0x10,
    EK_MSG_SAMPLES = 0x11,
    EK_MSG_COUNTER = 0x12,
    EK_MSG_MARK = 0x13,
    EK_MSG_OP_TRACE = 0x14,
    EK_MSG_METRIC = 0x16,
    EK_MSG_GAP = 0x17,
    EK_MSG_RUN_END = 0x18,
    EK_MSG_CMD = 0x20,
    EK_MSG_RESULT = 0x21,
    EK_MSG_XFER_BEGIN = 0x30,
    EK_MSG_XFER_DATA = 0x31,
    EK_MSG_XFER_ACK = 0x32,
    EK_MSG_XFER_END = 0x33,
    EK_MSG_BYE = 0x3f
};

/* Host opens a session; repeated until answered. */
typedef struct ek_msg_hello {
    uint64_t session; /* random; the same value when the same host reconnects */
    uint8_t nonce[16]; /* random, new each time */
    uint32_t max_body; /* largest body the host takes */
    uint32_t flags; /* 0 */
} ek_msg_hello;

/* Device answers HELLO. */
typedef struct ek_msg_hello_ack {
    uint64_t boot; /* differs after every restart of the device */
    uint8_t nonce[16]; /* random, new each time */
    uint8_t uid[16]; /* identifies the device */
    uint64_t clock_hz; /* ticks per second of `t` and of latencies; 0 if not time */
    uint32_t max_body; /* largest body either side may send from now on */
    uint32_t window; /* package bytes the host may send unacknowledged */
    uint32_t caps; /* bits: 1 resident package, 2 upload, 4 emulated */
    uint8_t clock_kind; /* EK_WIRE_CLOCK */
    uint8_t auth; /* 1: AUTH must follow */
    uint8_t agent; /* EK_AGENT_KIND */
    uint8_t reserved;
    char name[32]; /* device */
    char firmware[32]; /* version of the agent */
} ek_msg_hello_ack;

/* Clock exchange; also keeps the link alive. */
typedef struct ek_msg_sync {
    uint64_t t1; /* host clock when sent, ns */
} ek_msg_sync;

/* Device answers SYNC. */
typedef struct ek_msg_sync_reply {
    uint64_t t1; /* as received */
    uint64_t t2; /* device ticks when received */
    uint64_t t3; /* device ticks when answered */
} ek_msg_sync_reply;

/* Receiver has processed everything of a stream up to `seq`. */
typedef struct ek_msg_ack {
    uint16_t stream;
    uint16_t flags; /* bit 0: send again everything later that the bitmap lacks */
    uint32_t seq; /* last of the unbroken row processed; 0: nothing yet */
    uint32_t bitmap; /* bit i: frame seq+1+i is here already */
} ek_msg_ack;

/* Something was refused outside a command. */
typedef struct ek_msg_error {
    uint16_t code; /* EK_WIRE_CODE */
    uint16_t type; /* type of the frame that caused it */
    const uint8_t *text; /* at most 96 bytes UTF-8 */
    uint32_t text_len; /* bytes */
} ek_msg_error;

/* A line for people. */
typedef struct ek_msg_log {
    uint16_t level; /* 0 error, 1 warning, 2 note */
    const uint8_t *text; /* at most 96 bytes UTF-8 */
    uint32_t text_len; /* bytes */
} ek_msg_log;

/* Host proves that it knows the token. */
typedef struct ek_msg_auth {
    uint8_t proof[32]; /* HMAC-SHA256, see Authentication */
} ek_msg_auth;

/* Device proves that it knows the token. */
typedef struct ek_msg_auth_ack {
    uint8_t proof[32]; /* HMAC-SHA256, see Authentication */
} ek_msg_auth_ack;

/* What a channel is; sent before its first reading in every run. */
typedef struct ek_msg_channel_desc {
    uint32_t run;
    uint16_t channel; /* EK_CHANNEL or a sensor's number */
    uint8_t kind; /* EK_KIND */
    uint8_t quality; /* EK_QUALITY */
    uint8_t unit; /* EK_UNIT */
    uint8_t reserved;
    uint16_t reserved2;
    uint32_t rate_mhz; /* nominal readings per 1000 s; 0: no fixed rate */
    char name[32];
    char site[32]; /* what is measured: board, CPU package, rail */
    char reason[96]; /* why unmeasurable, else how measured */
} ek_msg_channel_desc;

/* Consecutive values of one channel. */
typedef struct ek_msg_samples {
    uint32_t run;
    uint16_t channel;
    uint8_t item; /* bytes per value, always 8 in version 1 */
    uint8_t quality; /* EK_QUALITY */
    uint32_t first; /* index of the first value in the run */
    const uint8_t *values; /* u64 items */
    uint32_t values_len; /* bytes */
} ek_msg_samples;

/* A monotonic counter, unwrapped; `t` of the frame is when it was read. */
typedef struct ek_msg_counter {
    uint32_t run;
    uint16_t channel;
    uint8_t quality; /* EK_QUALITY */
    uint8_t unit; /* EK_UNIT */
    uint64_t value;
} ek_msg_counter;

/* An instant of a run. */
typedef struct ek_msg_mark {
    uint32_t run;
    uint16_t id; /* 1 measured loop */
    uint16_t kind; /* 1 begin, 2 end */
    uint32_t arg; /* inferences done so far */
} ek_msg_mark;

/* Ops of one traced inference. */
typedef struct ek_msg_op_trace {
    uint32_t run;
    uint32_t index; /* which traced inference, from 0 */
    const uint8_t *items; /* OpTime items */
    uint32_t items_len; /* bytes */
} ek_msg_op_trace;

/* Readings of several channels at one instant (`t` of the frame). */
typedef struct ek_msg_metric {
    uint32_t run;
    const uint8_t *items; /* Reading items */
    uint32_t items_len; /* bytes */
} ek_msg_metric;

/* Readings are missing; loss is always a record. */
typedef struct ek_msg_gap {
    uint32_t run;
    uint16_t channel;
    uint16_t reason; /* EK_GAP */
    uint64_t first; /* index or ticks of the first missing one */
    uint32_t count; /* how many; 0: not known */
} ek_msg_gap;

/* Last frame of a run. */
typedef struct ek_msg_run_end {
    uint32_t run;
    uint16_t code; /* EK_WIRE_CODE */
    uint16_t reserved; /* 0 */
    uint32_t status; /* ek_status of the runtime */
    uint32_t runs; /* measured inferences */
    uint32_t traced; /* traced inferences */
    const uint8_t *text; /* at most 96 bytes UTF-8 */
    uint32_t text_len; /* bytes */
} ek_msg_run_end;

/* A command; unused fields are 0. */
typedef struct ek_msg_cmd {
    uint32_t ctr; /* strictly increasing in a session; a repetition has the same */
    uint16_t op; /* EK_CMD */
    uint16_t entry;
    uint32_t index;
    uint32_t offset;
    uint32_t count;
    uint32_t flags;
    uint32_t run; /* chosen by the host, names the data of a benchmark */
    uint32_t limit_ms; /* time limit; 0: the agent's own */
    const uint8_t *data; /* bytes */
    uint32_t data_len; /* bytes */
} ek_msg_cmd;

/* Answer to the command `ctr`. */
typedef struct ek_msg_result {
    uint32_t ctr;
    uint16_t op;
    uint16_t code; /* EK_WIRE_CODE; not OK: `data` is a sentence or empty */
    uint32_t status; /* ek_status */
    uint32_t offset;
    uint32_t total; /* bytes of the whole tensor */
    uint32_t flags;
    uint64_t value;
    const uint8_t *data; /* bytes */
    uint32_t data_len; /* bytes */
} ek_msg_result;

/* Host offers a package. */
typedef struct ek_msg_xfer_begin {
    uint8_t sha256[32];
    uint64_t size; /* bytes */
    uint32_t kind; /* 0: package */
} ek_msg_xfer_begin;

/* Bytes of the package being uploaded. */
typedef struct ek_msg_xfer_data {
    uint32_t id; /* first four bytes of the SHA-256, little-endian */
    uint32_t reserved;
    uint64_t offset;
    const uint8_t *data; /* bytes */
    uint32_t data_len; /* bytes */
} ek_msg_xfer_data;

/* Everything before `offset` is stored; begin, data and end are answered by it. */
typedef struct ek_msg_xfer_ack {
    uint32_t id;
    uint16_t code; /* EK_WIRE_CODE; not OK: the upload has ended */
    uint16_t done; /* 1: complete and its SHA-256 is right */
    uint64_t offset;
    uint32_t window; /* bytes that may be sent beyond `offset` */
    const uint8_t *text; /* at most 96 bytes UTF-8 */
    uint32_t text_len; /* bytes */
} ek_msg_xfer_ack;

/* All bytes were sent: check and take the package. */
typedef struct ek_msg_xfer_end {
    uint32_t id;
    uint32_t reserved;
} ek_msg_xfer_end;

/* The sender ends the session. */
typedef struct ek_msg_bye {
    uint16_t reason; /* EK_WIRE_CODE */
    const uint8_t *text; /* at most 96 bytes UTF-8 */
    uint32_t text_len; /* bytes */
} ek_msg_bye;

/* One op of a traced inference. */
typedef struct ek_msg_op_time {
    uint16_t op; /* index in the package */
    uint16_t flags; /* bit 0: `duration` is saturated */
    uint32_t start; /* clock units since the inference began */
    uint32_t duration; /* clock units */
} ek_msg_op_time;

/* One value of one channel. */
typedef struct ek_msg_reading {
    uint16_t channel;
    uint8_t quality; /* EK_QUALITY */
    uint8_t unit; /* EK_UNIT */
    int64_t value;
} ek_msg_reading;

/* What INFO PACKAGE answers. */
typedef struct ek_msg_package_info {
    uint32_t entries;
    uint32_t ops;
    uint32_t tensors;
    uint32_t goldens;
    uint64_t package_bytes;
    uint32_t mem_session; /* bytes, ek_arena_size */
    uint32_t mem_main;
    uint32_t mem_fast;
    uint32_t mem_state;
    uint32_t mem_scratch;
    uint32_t cpu; /* bits (1 << ek_isa) the runtime may use here */
    uint32_t flags; /* bit 0: inputs are put back before every run */
} ek_msg_package_info;

/* What INFO ENTRY answers. */
typedef struct ek_msg_entry_info {
    uint32_t inputs;
    uint32_t outputs;
    char name[96];
} ek_msg_entry_info;

/* What INFO INPUT, OUTPUT and TENSOR answer. */
typedef struct ek_msg_tensor_info {
    uint32_t bytes;
    uint32_t dim0;
    uint32_t dim1;
    uint32_t dim2;
    uint32_t dim3;
    uint32_t dim4;
    uint32_t dim5;
    uint32_t dim6;
    uint32_t dim7;
    uint8_t rank;
    uint8_t dtype; /* ek_dtype */
    uint8_t quantized;
    uint8_t reserved;
    float scale;
    int32_t zero;
    char name[96];
} ek_msg_tensor_info;

/* What INFO OP answers. */
typedef struct ek_msg_op_info {
    uint32_t entry;
    uint32_t version;
    uint32_t exact;
    uint32_t output; /* tensor index of its first output; 0xffffffff: none */
    char type[32];
    char isa[32];
    char name[96];
} ek_msg_op_info;

enum { EK_FIELD_U8 = 1, EK_FIELD_U16 = 2, EK_FIELD_U32 = 4, EK_FIELD_U64 = 8, EK_FIELD_BYTES = 16 };
/* One field: where it is in the C structure, its kind, and its bytes on the wire. */
typedef struct ek_wire_field { uint16_t at; uint8_t kind, size; } ek_wire_field;
/* One body.  `tail` is the offset of its tail pointer (its length follows); 0: none. */
typedef struct ek_wire_layout {
    const ek_wire_field *fields;
    uint16_t size, item; /* bytes on the wire without tail; bytes of a tail's item */
    uint16_t tail;
    uint8_t count, reserved;
} ek_wire_layout;

extern const ek_wire_layout ek_layout_hello;
extern const ek_wire_layout ek_layout_hello_ack;
extern const ek_wire_layout ek_layout_sync;
extern const ek_wire_layout ek_layout_sync_reply;
extern const ek_wire_layout ek_layout_ack;
extern const ek_wire_layout ek_layout_error;
extern const ek_wire_layout ek_layout_log;
extern const ek_wire_layout ek_layout_auth;
extern const ek_wire_layout ek_layout_auth_ack;
extern const ek_wire_layout ek_layout_channel_desc;
extern const ek_wire_layout ek_layout_samples;
extern const ek_wire_layout ek_layout_counter;
extern const ek_wire_layout ek_layout_mark;
extern const ek_wire_layout ek_layout_op_trace;
extern const ek_wire_layout ek_layout_metric;
extern const ek_wire_layout ek_layout_gap;
extern const ek_wire_layout ek_layout_run_end;
extern const ek_wire_layout ek_layout_cmd;
extern const ek_wire_layout ek_layout_result;
extern const ek_wire_layout ek_layout_xfer_begin;
extern const ek_wire_layout ek_layout_xfer_data;
extern const ek_wire_layout ek_layout_xfer_ack;
extern const ek_wire_layout ek_layout_xfer_end;
extern const ek_wire_layout ek_layout_bye;
extern const ek_wire_layout ek_layout_op_time;
extern const ek_wire_layout ek_layout_reading;
extern const ek_wire_layout ek_layout_package_info;
extern const ek_wire_layout ek_layout_entry_info;
extern const ek_wire_layout ek_layout_tensor_info;
extern const ek_wire_layout ek_layout_op_info;

#endif
