// node node.js PACKAGE FOLDER OUT: answer the cases in FOLDER by onnxruntime-node or onnxruntime-web, into OUT.

import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { answer } from "./answer.js";

const [name, folder, out] = process.argv.slice(2);
const loaded = await import(name);
const ort = loaded.InferenceSession ? loaded : loaded.default;
if (name === "onnxruntime-web") ort.env.wasm.numThreads = 1;

const found = await answer(ort, (file) => readFile(join(folder, file)));
await writeFile(out, JSON.stringify({ ...found, host: `Node ${process.version}` }));
process.exit(0); // onnxruntime-web's worker threads would keep the process
