/** Embeds texts and a picture with transformers.js: [folder, model, texts, picture] in JSON on stdin, JSON on stdout. */

import { readFileSync } from "node:fs";

import {
  AutoProcessor,
  AutoTokenizer,
  CLIPTextModelWithProjection,
  CLIPVisionModelWithProjection,
  env,
  RawImage,
} from "@huggingface/transformers";

const [folder, model, texts, picture] = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = `${folder}/`;
const tokenizer = await AutoTokenizer.from_pretrained(model);
const processor = await AutoProcessor.from_pretrained(model);
const textModel = await CLIPTextModelWithProjection.from_pretrained(model);
const visionModel = await CLIPVisionModelWithProjection.from_pretrained(model);
const tokens = tokenizer(texts, { padding: "max_length", truncation: true });
const { text_embeds } = await textModel(tokens);
const { image_embeds } = await visionModel(await processor(await RawImage.read(picture)));
const ids = tokens.input_ids.tolist().map((row) => row.map(Number));
console.log(JSON.stringify({ ids, texts: text_embeds.tolist(), image: image_embeds.tolist() }));
