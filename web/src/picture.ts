/** Pictures as a browser has them: decoded upright, laid on white, read without any change of colour. */

import { UserError } from "./errors";
import type { Source } from "./resize";

const MOST_PIXELS = 64_000_000;

/** How a picture is decoded: its EXIF orientation is applied, its colour profile and its alpha are not. */
const AS_STORED: ImageBitmapOptions = {
  imageOrientation: "from-image",
  colorSpaceConversion: "none",
  premultiplyAlpha: "none",
};

/** Calls `use` with the pixels of a picture, and frees them. */
export async function withPicture<T>(picture: Blob | ImageBitmap, use: (source: Source) => T): Promise<T> {
  const bitmap = picture instanceof Blob ? await decode(picture) : picture;
  try {
    return use(new BitmapSource(bitmap));
  } finally {
    bitmap.close();
  }
}

async function decode(file: Blob): Promise<ImageBitmap> {
  const name = file instanceof File && file.name ? file.name : "the picture";
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, AS_STORED);
  } catch {
    throw new UserError(`${name} cannot be read: it is damaged, or of a kind that this browser does not know.`);
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    bitmap.close();
    throw new UserError(`${name} has more than ${MOST_PIXELS / 1e6} million pixels: make it smaller first.`);
  }
  return bitmap;
}

/** Bands of a bitmap, through a canvas as high as a band. */
class BitmapSource implements Source {
  readonly width: number;
  readonly height: number;
  private readonly canvas: OffscreenCanvas;

  constructor(private readonly bitmap: ImageBitmap) {
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.canvas = new OffscreenCanvas(1, 1);
  }

  rows(first: number, num: number): Uint8ClampedArray {
    if (this.canvas.width !== this.width || this.canvas.height < num) {
      [this.canvas.width, this.canvas.height] = [this.width, num];
    }
    const context = this.canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
    if (context === null) throw new UserError("This browser cannot read pixels: it has no canvas outside the page.");
    context.imageSmoothingEnabled = false;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, this.width, num);
    context.drawImage(this.bitmap, 0, first, this.width, num, 0, 0, this.width, num);
    return context.getImageData(0, 0, this.width, num).data;
  }
}
