// Files from a drop, from folders and from the clipboard, and their thumbnails.

const READABLE = new RegExp(`\\.(${[
  "png|apng|jpe?g|jfif|jpe|webp|tiff?|avifs?|gif|hei[cf]|hif|jxl|bmp|dib|tga|icb|vda|vst|dds|ico|cur|icns|jp2|j2k|jpc|jpf|jpx",
  "mpo|p[pgbn]m|psd|qoi|sgi|rgba?|bw|pcx|dcx|ras|im|x[bp]m|blp|fits|mp4|m4v|mov|mkv|webm|avi",
].join("|")})$`, "i");
const SIDE = 160;

export const isVideo = (file) => /^video\//.test(file.type) || /\.(mkv|avi)$/i.test(file.name);

const isWanted = ({ name }) => READABLE.test(name) && !name.split("/").pop().startsWith(".");

// Files that were chosen, with their place in the chosen folder.
export function chosen(files) {
  const named = [...files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
  return named.some(({ name }) => name.includes("/")) ? named.filter(isWanted) : named;
}

// Files and folders of a drop. Entries must be taken before anything is awaited.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(transfer.files);
  const found = await Promise.all(entries.map((entry) => walk(entry)));
  return entries.some((entry) => entry.isDirectory) ? found.flat().filter(isWanted) : found.flat();
}

async function walk(entry) {
  const name = entry.fullPath.slice(1);
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), name }];
  const reader = entry.createReader(), found = [];
  for (;;) { // a reader gives a hundred entries at a time
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return (await Promise.all(found.map(walk))).flat();
    found.push(...entries);
  }
}

// A small image of a file, or null where the browser cannot show it.
export async function thumbnail(file) {
  try {
    const source = isVideo(file) ? await firstFrame(file) : await createImageBitmap(file);
    const [width, height] = [source.videoWidth || source.width, source.videoHeight || source.height];
    const scale = SIDE / Math.min(width, height);
    const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(source, (SIDE - width * scale) / 2, (SIDE - height * scale) / 2, width * scale, height * scale);
    source.close?.();
    return canvas;
  } catch {
    return null;
  }
}

function firstFrame(file) {
  return new Promise((resolve, reject) => {
    const video = Object.assign(document.createElement("video"), { muted: true, preload: "auto" });
    video.addEventListener("loadeddata", () => resolve(video));
    video.addEventListener("error", reject);
    video.src = URL.createObjectURL(file);
  });
}
