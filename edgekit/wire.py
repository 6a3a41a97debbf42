"""EdgeKit's wire format: every message body, once, for host, device agent and C.

The classes below are the table.  ``encode``/``decode`` work from it, ``c_sources`` makes
native/gen/wire.{h,c} and the tables of native/WIRE.md from it.  Bodies are packed little-endian
structures; a body without a tail may grow at its end (readers ignore what follows), one with a
tail is final and is succeeded by a new type number.  Frames and rules: native/WIRE.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from .wire_codec import B16 as B16
from .wire_codec import B32 as B32
from .wire_codec import F32 as F32
from .wire_codec import HEADER as HEADER
from .wire_codec import I32 as I32
from .wire_codec import I64 as I64
from .wire_codec import LAYOUTS as LAYOUTS
from .wire_codec import MAX_BODY as MAX_BODY
from .wire_codec import MESSAGES as MESSAGES
from .wire_codec import MIN_BODY as MIN_BODY
from .wire_codec import OVERHEAD as OVERHEAD
from .wire_codec import S32 as S32
from .wire_codec import S96 as S96
from .wire_codec import TEXT_MAX as TEXT_MAX
from .wire_codec import U8 as U8
from .wire_codec import U16 as U16
from .wire_codec import U32 as U32
from .wire_codec import U64 as U64
from .wire_codec import VERSION as VERSION
from .wire_codec import Body as Body
from .wire_codec import Frame as Frame
from .wire_codec import Framing as Framing
from .wire_codec import Layout as Layout
from .wire_codec import Reader as Reader
from .wire_codec import Rest as Rest
from .wire_codec import Scalar as Scalar
from .wire_codec import Tail as Tail
from .wire_codec import WireError as WireError
from .wire_codec import clean as clean
from .wire_codec import cobs_decode as cobs_decode
from .wire_codec import cobs_encode as cobs_encode
from .wire_codec import cut as cut
from .wire_codec import decode as decode
from .wire_codec import decode_frame as decode_frame
from .wire_codec import encode as encode
from .wire_codec import encode_frame as encode_frame
from .wire_codec import frame as frame
from .wire_codec import item_size as item_size
from .wire_codec import items as items
from .wire_codec import proof as proof
from .wire_codec import same as same
from .wire_codec import wrap as wrap

# ---- numbers --------------------------------------------------------------------------------


class Quality(IntEnum):
    """Where a number comes from."""

    MEASURED = 1  # an instrument or clock said so
    COUNTER = 2  # difference of a hardware accumulator
    MODELLED = 3  # computed from a model of the device
    ESTIMATED = 4  # an estimate with known weaknesses
    UNMEASURABLE = 5  # not measurable here; the reason says why


class Unit(IntEnum):
    """Unit of a value on the wire."""

    NONE = 0
    TICKS = 1
    INSTRUCTIONS = 2
    NS = 3
    US = 4
    BYTES = 5
    MILLICELSIUS = 6
    KHZ = 7
    UW = 8
    UJ = 9
    UV = 10
    UA = 11
    COUNT = 12
    PPM = 13


class Kind(IntEnum):
    """What a channel tells."""

    LATENCY = 1
    MEMORY = 2
    STACK = 3
    TEMPERATURE = 4
    FREQUENCY = 5
    POWER = 6
    ENERGY = 7
    VOLTAGE = 8
    CURRENT = 9
    LOAD = 10


class ClockKind(IntEnum):
    """What one unit of the device's clock is; only TIME may be printed as microseconds."""

    NONE = 0
    TIME = 1
    INSTRUCTIONS = 2
    TICKS = 3


class AgentKind(IntEnum):
    """Which implementation answers."""

    PYTHON = 0
    POSIX = 1
    MCU = 2


class Code(IntEnum):
    """Why something was refused; `OK` otherwise."""

    OK = 0
    STATUS = 1  # the runtime refused: see `status`
    BUSY = 2  # a benchmark or another host has the device
    UNKNOWN = 3  # no such command
    ARGUMENT = 4  # an index, offset or count is out of range
    NO_PACKAGE = 5  # nothing uploaded, no resident package
    NO_SESSION = 6  # OPEN first
    TIMEOUT = 7  # the time limit ended it
    CRASHED = 8  # the process that ran the package died
    NO_SPACE = 9  # disk or memory full
    HASH = 10  # the uploaded bytes have another SHA-256
    AUTH = 11  # the token's proof is wrong or missing
    CANCELLED = 12
    NO_CLOCK = 13  # the device has no usable clock
    INTERNAL = 14
    VERSION = 15  # another protocol version


class Command(IntEnum):
    """Operations of `Cmd`; the fields each uses are in WIRE.md."""

    OPEN = 1
    VERIFY = 2
    INFO = 3
    SET_INPUT = 4
    RUN = 5
    GET_OUTPUT = 6
    GET_TENSOR = 7
    BENCH = 8
    SELFTEST = 9
    RESET = 10
    CANCEL = 11
    CLOSE = 12


class Info(IntEnum):
    """What INFO is asked for (`index`)."""

    PACKAGE = 1
    ENTRY = 2
    INPUT = 3
    OUTPUT = 4
    TENSOR = 5
    OP = 6


class Channel(IntEnum):
    """Channels with a fixed meaning; sensors are numbered from FIRST_SENSOR."""

    LATENCY = 1  # one inference, in clock units
    OPEN = 2  # ek_open, in clock units
    FIRST = 3  # first inference after open
    PEAK_RSS = 4
    STACK = 5
    MEM_SESSION = 6  # +1 per memory kind: main, fast, state, scratch
    MEM_MAIN = 7
    MEM_FAST = 8
    MEM_STATE = 9
    MEM_SCRATCH = 10
    FIRST_SENSOR = 16


class GapReason(IntEnum):
    """Why readings are missing."""

    OVERRUN = 1
    WRAP_UNKNOWN = 2  # a counter went backwards and its range is not known
    READ_FAILED = 3
    POLICY = 4


class Source(IntEnum):
    """Which package OPEN and VERIFY mean."""

    UPLOADED = 0
    RESIDENT = 1


STREAM_CONTROL = 0  # request and reply, never queued
STREAM_RUN = 1  # everything a benchmark produces, in order
STREAM_MONITOR = 2  # sensors outside benchmarks

ENUMS: dict[str, type[IntEnum]] = {
    "EK_QUALITY": Quality, "EK_UNIT": Unit, "EK_KIND": Kind, "EK_WIRE_CLOCK": ClockKind,
    "EK_AGENT_KIND": AgentKind, "EK_WIRE_CODE": Code, "EK_CMD": Command, "EK_INFO": Info,
    "EK_CHANNEL": Channel, "EK_GAP": GapReason, "EK_SOURCE": Source,
}  # fmt: skip

CAP_RESIDENT = 1  # HelloAck.caps: a package is linked in
CAP_UPLOAD = 2
CAP_EMULATED = 4  # no time of this device means anything
ACK_RESEND = 1  # Ack.flags: send again what the bitmap does not show
TRACE_SATURATED = 1  # OpTime.flags: longer than the field can say


# ---- messages: session ----------------------------------------------------------------------


class Hello(Body, code=0x00):
    """Host opens a session; repeated until answered."""

    session: Annotated[U64, "random; the same value when the same host reconnects"]
    nonce: Annotated[B16, "random, new each time"]
    max_body: Annotated[U32, "largest body the host takes"]
    flags: Annotated[U32, "0"] = 0


class HelloAck(Body, code=0x01):
    """Device answers HELLO."""

    boot: Annotated[U64, "differs after every restart of the device"]
    nonce: Annotated[B16, "random, new each time"]
    uid: Annotated[B16, "identifies the device"]
    clock_hz: Annotated[U64, "ticks per second of `t` and of latencies; 0 if not time"]
    max_body: Annotated[U32, "largest body either side may send from now on"]
    window: Annotated[U32, "package bytes the host may send unacknowledged"]
    caps: Annotated[U32, "bits: 1 resident package, 2 upload, 4 emulated"]
    clock_kind: Annotated[U8, "EK_WIRE_CLOCK"]
    auth: Annotated[U8, "1: AUTH must follow"]
    agent: Annotated[U8, "EK_AGENT_KIND"]
    reserved: U8 = 0
    name: Annotated[S32, "device"] = ""
    firmware: Annotated[S32, "version of the agent"] = ""


class Sync(Body, code=0x02):
    """Clock exchange; also keeps the link alive."""

    t1: Annotated[U64, "host clock when sent, ns"]


class SyncReply(Body, code=0x03):
    """Device answers SYNC."""

    t1: Annotated[U64, "as received"]
    t2: Annotated[U64, "device ticks when received"]
    t3: Annotated[U64, "device ticks when answered"]


class Ack(Body, code=0x04):
    """Receiver has processed everything of a stream up to `seq`."""

    stream: U16
    flags: Annotated[U16, "bit 0: send again everything later that the bitmap lacks"]
    seq: Annotated[U32, "last of the unbroken row processed; 0: nothing yet"]
    bitmap: Annotated[U32, "bit i: frame seq+1+i is here already"]


class Error(Body, code=0x06):
    """Something was refused outside a command."""

    code: Annotated[U16, "EK_WIRE_CODE"]
    type: Annotated[U16, "type of the frame that caused it"]
    text: Annotated[Tail, "at most 96 bytes UTF-8"] = b""


class Log(Body, code=0x07):
    """A line for people."""

    level: Annotated[U16, "0 error, 1 warning, 2 note"]
    text: Annotated[Tail, "at most 96 bytes UTF-8"] = b""


class Auth(Body, code=0x08):
    """Host proves that it knows the token."""

    proof: Annotated[B32, "HMAC-SHA256, see Authentication"]


class AuthAck(Body, code=0x09):
    """Device proves that it knows the token."""

    proof: Annotated[B32, "HMAC-SHA256, see Authentication"]


# ---- messages: data -------------------------------------------------------------------------


class ChannelDesc(Body, code=0x10):
    """What a channel is; sent before its first reading in every run."""

    run: U32
    channel: Annotated[U16, "EK_CHANNEL or a sensor's number"]
    kind: Annotated[U8, "EK_KIND"]
    quality: Annotated[U8, "EK_QUALITY"]
    unit: Annotated[U8, "EK_UNIT"]
    reserved: U8 = 0
    reserved2: U16 = 0
    rate_mhz: Annotated[U32, "nominal readings per 1000 s; 0: no fixed rate"] = 0
    name: S32 = ""
    site: Annotated[S32, "what is measured: board, CPU package, rail"] = ""
    reason: Annotated[S96, "why unmeasurable, else how measured"] = ""


class Samples(Body, code=0x11):
    """Consecutive values of one channel."""

    run: U32
    channel: U16
    item: Annotated[U8, "bytes per value, always 8 in version 1"]
    quality: Annotated[U8, "EK_QUALITY"]
    first: Annotated[U32, "index of the first value in the run"]
    values: Annotated[Tail, Rest("u64"), "u64 each, in the channel's unit"] = b""


class Counter(Body, code=0x12):
    """A monotonic counter, unwrapped; `t` of the frame is when it was read."""

    run: U32
    channel: U16
    quality: Annotated[U8, "EK_QUALITY"]
    unit: Annotated[U8, "EK_UNIT"]
    value: U64


class Mark(Body, code=0x13):
    """An instant of a run."""

    run: U32
    id: Annotated[U16, "1 measured loop"]
    kind: Annotated[U16, "1 begin, 2 end"]
    arg: Annotated[U32, "inferences done so far"]


class OpTrace(Body, code=0x14):
    """Ops of one traced inference."""

    run: U32
    index: Annotated[U32, "which traced inference, from 0"]
    items: Annotated[Tail, Rest("OpTime")] = b""


class Metric(Body, code=0x16):
    """Readings of several channels at one instant (`t` of the frame)."""

    run: U32
    items: Annotated[Tail, Rest("Reading")] = b""


class Gap(Body, code=0x17):
    """Readings are missing; loss is always a record."""

    run: U32
    channel: U16
    reason: Annotated[U16, "EK_GAP"]
    first: Annotated[U64, "index or ticks of the first missing one"]
    count: Annotated[U32, "how many; 0: not known"]


class RunEnd(Body, code=0x18):
    """Last frame of a run."""

    run: U32
    code: Annotated[U16, "EK_WIRE_CODE"]
    reserved: Annotated[U16, "0"]
    status: Annotated[U32, "ek_status of the runtime"]
    runs: Annotated[U32, "measured inferences"]
    traced: Annotated[U32, "traced inferences"]
    text: Annotated[Tail, "at most 96 bytes UTF-8"] = b""


# ---- messages: commands ---------------------------------------------------------------------


class Cmd(Body, code=0x20):
    """A command; unused fields are 0."""

    ctr: Annotated[U32, "strictly increasing in a session; a repetition has the same"]
    op: Annotated[U16, "EK_CMD"]
    entry: U16 = 0
    index: U32 = 0
    offset: U32 = 0
    count: U32 = 0
    flags: U32 = 0
    run: Annotated[U32, "chosen by the host, names the data of a benchmark"] = 0
    limit_ms: Annotated[U32, "time limit; 0: the agent's own"] = 0
    data: Tail = b""


class Result(Body, code=0x21):
    """Answer to the command `ctr`."""

    ctr: U32
    op: U16
    code: Annotated[U16, "EK_WIRE_CODE; not OK: `data` is a sentence or empty"]
    status: Annotated[U32, "ek_status"] = 0
    offset: U32 = 0
    total: Annotated[U32, "bytes of the whole tensor"] = 0
    flags: U32 = 0
    value: U64 = 0
    data: Tail = b""


class XferBegin(Body, code=0x30):
    """Host offers a package."""

    sha256: B32
    size: Annotated[U64, "bytes"]
    kind: Annotated[U32, "0: package"] = 0


class XferData(Body, code=0x31):
    """Bytes of the package being uploaded."""

    id: Annotated[U32, "first four bytes of the SHA-256, little-endian"]
    reserved: U32
    offset: U64
    data: Tail = b""


class XferAck(Body, code=0x32):
    """Everything before `offset` is stored; begin, data and end are answered by it."""

    id: U32
    code: Annotated[U16, "EK_WIRE_CODE; not OK: the upload has ended"]
    done: Annotated[U16, "1: complete and its SHA-256 is right"]
    offset: U64
    window: Annotated[U32, "bytes that may be sent beyond `offset`"]
    text: Annotated[Tail, "at most 96 bytes UTF-8"] = b""


class XferEnd(Body, code=0x33):
    """All bytes were sent: check and take the package."""

    id: U32
    reserved: U32 = 0


class Bye(Body, code=0x3F):
    """The sender ends the session."""

    reason: Annotated[U16, "EK_WIRE_CODE"]
    text: Annotated[Tail, "at most 96 bytes UTF-8"] = b""


# ---- records --------------------------------------------------------------------------------


class OpTime(Body):
    """One op of a traced inference."""

    op: Annotated[U16, "index in the package"]
    flags: Annotated[U16, "bit 0: `duration` is saturated"]
    start: Annotated[U32, "clock units since the inference began"]
    duration: Annotated[U32, "clock units"]


class Reading(Body):
    """One value of one channel."""

    channel: U16
    quality: Annotated[U8, "EK_QUALITY"]
    unit: Annotated[U8, "EK_UNIT"]
    value: I64


class PackageInfo(Body):
    """What INFO PACKAGE answers."""

    entries: U32
    ops: U32
    tensors: U32
    goldens: U32
    package_bytes: U64
    mem_session: Annotated[U32, "bytes, ek_arena_size"]
    mem_main: U32
    mem_fast: U32
    mem_state: U32
    mem_scratch: U32
    cpu: Annotated[U32, "bits (1 << ek_isa) the runtime may use here"]
    flags: Annotated[U32, "bit 0: inputs are put back before every run"]


class EntryInfo(Body):
    """What INFO ENTRY answers."""

    inputs: U32
    outputs: U32
    name: S96


class TensorInfo(Body):
    """What INFO INPUT, OUTPUT and TENSOR answer."""

    bytes: U32
    dim0: U32
    dim1: U32
    dim2: U32
    dim3: U32
    dim4: U32
    dim5: U32
    dim6: U32
    dim7: U32
    rank: U8
    dtype: Annotated[U8, "ek_dtype"]
    quantized: U8
    reserved: U8
    scale: F32
    zero: I32
    name: S96


class OpInfo(Body):
    """What INFO OP answers."""

    entry: U32
    version: U32
    exact: U32
    output: Annotated[U32, "tensor index of its first output; 0xffffffff: none"]
    type: S32
    isa: S32
    name: S96


def c_sources() -> dict[str, str]:
    """Path in the repository -> text of every file generated from this table."""
    from . import wire_gen

    return wire_gen.c_sources()
