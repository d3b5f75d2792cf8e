/** The camera, and sentences for all that may stand in its way. */

import { UserError } from "./errors";

export interface Camera {
  readonly hasOthers: boolean;
  turn(): Promise<void>;
  stop(): void;
}

const REASONS: Readonly<Record<string, string>> = {
  NotAllowedError: "The camera was refused: allow it for this page in the browser's settings.",
  NotFoundError: "There is no camera: choose, drop or paste a picture instead.",
  NotReadableError: "The camera cannot be read: another program may be using it.",
};

/** Shows a camera in a video; on phones the one at the back first. */
export async function startCamera(video: HTMLVideoElement): Promise<Camera> {
  if (!("mediaDevices" in navigator)) {
    throw new UserError("The camera needs https, or this page on localhost: browsers allow it nowhere else.");
  }
  let stream = await ask({ facingMode: { ideal: "environment" } });
  await play(video, stream);
  const devices = await navigator.mediaDevices.enumerateDevices();
  const cameras = devices.filter((one) => one.kind === "videoinput");
  return {
    hasOthers: cameras.length > 1,
    turn: async () => {
      const current = stream.getVideoTracks()[0]?.getSettings().deviceId;
      const at = cameras.findIndex((one) => one.deviceId === current);
      const next = cameras[(at + 1) % cameras.length] as MediaDeviceInfo;
      end(stream);
      stream = await ask({ deviceId: { exact: next.deviceId } });
      await play(video, stream);
    },
    stop: () => {
      end(stream);
      video.srcObject = null;
    },
  };
}

async function ask(video: MediaTrackConstraints): Promise<MediaStream> {
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio: false });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    throw new UserError(REASONS[name] ?? `The camera cannot be used: ${String(error)}.`);
  }
}

async function play(video: HTMLVideoElement, stream: MediaStream): Promise<void> {
  video.srcObject = stream;
  await video.play();
}

function end(stream: MediaStream): void {
  for (const track of stream.getTracks()) track.stop();
}
