// node classify.mjs edgekit.wasm PACKAGE < INPUT > OUTPUT: bytes of the first input in, of the first output out.
import { readFileSync, writeSync } from "node:fs";
import { EdgeKit } from "./edgekit.mjs";

const bytes = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const [wasm, model] = process.argv.slice(2);
const session = await EdgeKit.open(readFileSync(wasm), readFileSync(model));
session.selfTest();
bytes(session.input(0)).set(readFileSync(0));
session.run();
writeSync(1, bytes(session.output(0)));
