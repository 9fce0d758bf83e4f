// Runs every case of a folder in one of ONNX Runtime's JavaScript builds; the same code in Node and in a page.

const ARRAYS = { float32: Float32Array, float64: Float64Array };

// Base64 of little-endian elements: JSON has no NaN, and a number's text need not come back as the same bits.
function decode(text, Type) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Type(bytes.buffer);
}

function encode(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

async function answerCase(ort, model, { dtype, dims, data }) {
  const session = await ort.InferenceSession.create(model);
  const x = new ort.Tensor(dtype, decode(data, ARRAYS[dtype]), dims);
  const { y } = await session.run({ x });
  return { dtype: y.type, dims: y.dims, data: encode(y.data) };
}

// ort: the onnxruntime module. read(name): a file of the folder as a Uint8Array.
// Returns {versions, answers}: by the case's id what came out, or {error}.
export async function answer(ort, read) {
  const cases = JSON.parse(new TextDecoder().decode(await read("cases.json")));
  const answers = {};
  for (const each of cases) {
    try {
      answers[each.id] = await answerCase(ort, await read(each.model), each);
    } catch (error) {
      answers[each.id] = { error: String(error) };
    }
  }
  return { versions: ort.env.versions, answers };
}
