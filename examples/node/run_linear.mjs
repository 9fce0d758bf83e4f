// A model with MYLINEAR in it, run in Node:
//
//   npm install onnxruntime-node
//   node run_linear.mjs linear.onnx 1.5 -2  0.25 4
//
// prints what the model gives for each pair of numbers, one answer a line. Its input is float64 of shape (batch, 2), as
// that of the file which `mylinear train` and `mylinear export` make. onnxruntime-node takes no library of custom
// operators; the file carries MYLINEAR's function body, which every ONNX Runtime runs as fast as its own Gemm.
import { InferenceSession, Tensor } from "onnxruntime-node";

const [path, ...numbers] = process.argv.slice(2);
if (numbers.length === 0 || numbers.length % 2 !== 0) {
  console.error("usage: node run_linear.mjs MODEL (NUMBER NUMBER)...");
  process.exit(2);
}

const session = await InferenceSession.create(path);
const x = new Tensor("float64", Float64Array.from(numbers, Number), [numbers.length / 2, 2]);
const outputs = await session.run({ [session.inputNames[0]]: x });
for (const y of outputs[session.outputNames[0]].data) console.log(y);
