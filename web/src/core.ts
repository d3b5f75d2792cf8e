/** What has nothing to do with a browser: an app of your own may import it, and node too. */

export { clean } from "./clean";
export { UserError } from "./errors";
export { type Preprocess, normalise, square } from "./preprocess";
export { type Interpolation, type Order, resize, type Source } from "./resize";
export { readSafetensors } from "./safetensors";
export { Tokenizer } from "./tokenizer";
export { meanOf, odds, worstCosine, type Rows } from "./vectors";
