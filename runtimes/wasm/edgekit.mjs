// EdgeKit in Node and browsers: one session of a package.
//
//   const model = await EdgeKit.open(wasmBytes, packageBytes);
//   model.input(0).set(pixels);
//   model.run();
//   const scores = model.output(0).slice();
//
// Errors carry the runtime's sentence.  Views are of the module's memory: an output's content is valid until the next run.

const ARRAYS = [Float32Array, Int8Array, Uint8Array, Int16Array, Int32Array, BigInt64Array, Uint8Array]; // by ek_dtype
const BYTES = 4, DTYPE = 8 + 4 * 8 + 1; // fields of ek_tensor, wasm32

export class EdgeKit {
  static async open(wasm, packageBytes) {
    const { instance } = await WebAssembly.instantiate(wasm);
    const model = new EdgeKit();
    model.c = instance.exports;
    const at = model.c.ek_wasm_alloc(packageBytes.byteLength);
    if (!at) throw new Error("memory: there is not enough for this package");
    new Uint8Array(model.c.memory.buffer).set(new Uint8Array(packageBytes.buffer ?? packageBytes,
      packageBytes.byteOffset ?? 0, packageBytes.byteLength), at);
    model.#check(model.c.ek_wasm_open(at, packageBytes.byteLength));
    return model;
  }

  /** Typed array over input `i`; write it before run(). */
  input(i, entry = 0) { return this.#view(this.c.ek_wasm_input(entry, i), "input", i); }

  /** Typed array over output `i`. */
  output(i, entry = 0) { return this.#view(this.c.ek_wasm_output(entry, i), "output", i); }

  run(entry = 0) { this.#check(this.c.ek_wasm_run(entry)); }

  /** Runs the golden vectors of the package here. Overwrites inputs. */
  selfTest() { this.#check(this.c.ek_wasm_selftest()); }

  #view(at, what, i) {
    if (!at) throw new Error(`argument: there is no ${what} ${i}`);
    const memory = new DataView(this.c.memory.buffer);
    const kind = ARRAYS[memory.getUint8(at + DTYPE)];
    const bytes = memory.getUint32(at + BYTES, true);
    return new kind(this.c.memory.buffer, memory.getUint32(at, true), bytes / kind.BYTES_PER_ELEMENT);
  }

  #check(status) {
    if (!status) return;
    const memory = new Uint8Array(this.c.memory.buffer), at = this.c.ek_wasm_error(status);
    throw new Error(new TextDecoder().decode(memory.subarray(at, memory.indexOf(0, at))));
  }
}
