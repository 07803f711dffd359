// The page's words in English and Chinese. Elements name theirs: data-text fills them, data-label labels them.

const words = {
  en: {
    title: "convattn – upscale images and videos", api: "API", theme: "Switch between light and dark",
    heading: "Make images larger, and sharp",
    subheading: "Everything happens on this machine. Nothing is sent anywhere else.",
    subheadingRemote: "Your images are upscaled on this server and deleted after {minutes} minutes.",
    drop: "Drop images, folders or short videos here", paste: "or paste an image", release: "Release to upscale",
    chooseFiles: "Choose files", chooseFolder: "Choose a folder", example: "Try an example",
    settings: "Settings", model: "What is it?", size: "How large?", output: "Save as",
    auto: "Clean images", autoHint: "Artwork, renderings, screenshots, good photos. Any scale, any size.",
    realWorld: "Photos from phones and the web", realWorldHint: "Removes noise, blur and JPEG artifacts. Crisp results.",
    noisy: "Noisy photos", noisyHint: "Removes strong noise and JPEG blocks. Smooth results, fast.",
    fidelity: "Sharp (0) to faithful (1)", other: "Other", fitIn: "Size", scale: "Times larger", width: "Width at most", height: "Height at most",
    exact: "Stretch to exactly this size", format: "Format", same: "As the original", quality: "Quality",
    settingsHint: "Settings apply to what you add from now on.",
    total: "Progress of all", queue: "Your images", clear: "Clear", downloadAll: "Download all (ZIP)",
    download: "Download", compareShort: "Compare", retry: "Retry", remove: "Remove {name}", cancel: "Cancel {name}",
    compareOf: "Compare {name} before and after", downloadOf: "Download {name}", retryOf: "Retry {name}",
    compare: "Before and after", before: "Before", after: "After", fit: "Fit", zoom: "Zoom", close: "Close",
    divider: "Where the upscaled image begins",
    keys: "← → move the line · + − zoom · 0 fit · 1 100 % · N P next, previous · Esc closes",
    queued: "Waiting to be sent", uploading: "Sending {percent} %", waiting: "Waiting · {ahead} ahead",
    next: "Next", running: "Upscaling", left: "{time} left", done: "Done in {time}", cancelled: "Cancelled",
    failed: "Failed", offline: "The server cannot be reached", restarted: "The server lost this job; retry it.",
    unsupported: "No image or video that can be read", tooLarge: "Larger than {size}",
    summary: "{done} of {total} done", summaryLeft: "{done} of {total} done · {time} left",
    announceDone: "{name} is done.", announceFailed: "{name} failed: {error}",
    token: "This server needs a token", tokenHint: "The terminal where the server was started shows it.",
    tokenField: "Token", enter: "Enter", wrongToken: "This is not the token.",
    about: "convattn {version} on {device}",
  },
  zh: {
    title: "convattn – 图像与视频放大", api: "API", theme: "切换浅色与深色",
    heading: "放大图像，依然清晰",
    subheading: "所有计算都在本机完成，数据不会发送到别处。",
    subheadingRemote: "图像在此服务器上放大，{minutes} 分钟后删除。",
    drop: "将图像、文件夹或短视频拖到这里", paste: "也可以直接粘贴图像", release: "松开即可放大",
    chooseFiles: "选择文件", chooseFolder: "选择文件夹", example: "试用示例",
    settings: "设置", model: "图像类型", size: "放大多少", output: "保存为",
    auto: "清晰的图像", autoHint: "插画、渲染图、截图和高质量照片。任意倍数，任意尺寸。",
    realWorld: "手机与网络照片", realWorldHint: "去除噪点、模糊和 JPEG 压缩痕迹，结果锐利。",
    noisy: "噪点多的照片", noisyHint: "去除强噪点与 JPEG 压缩块，结果平滑，速度快。",
    fidelity: "锐利（0）到忠实（1）", other: "其他", fitIn: "尺寸", scale: "放大倍数", width: "最大宽度", height: "最大高度",
    exact: "拉伸到正好这个尺寸", format: "格式", same: "与原图相同", quality: "质量",
    settingsHint: "设置只对之后添加的文件生效。",
    total: "总进度", queue: "图像列表", clear: "清空", downloadAll: "全部下载（ZIP）",
    download: "下载", compareShort: "对比", retry: "重试", remove: "移除 {name}", cancel: "取消 {name}",
    compareOf: "对比 {name} 放大前后", downloadOf: "下载 {name}", retryOf: "重试 {name}",
    compare: "放大前后对比", before: "放大前", after: "放大后", fit: "适应", zoom: "缩放", close: "关闭",
    divider: "放大后图像的起点",
    keys: "← → 移动分界线 · + − 缩放 · 0 适应窗口 · 1 100 % · N P 下一张、上一张 · Esc 关闭",
    queued: "等待发送", uploading: "正在发送 {percent} %", waiting: "排队中 · 前面还有 {ahead} 个",
    next: "即将开始", running: "正在放大", left: "剩余 {time}", done: "完成，用时 {time}", cancelled: "已取消",
    failed: "失败", offline: "无法连接服务器", restarted: "服务器丢失了此任务，请重试。",
    unsupported: "不是可以读取的图像或视频", tooLarge: "超过 {size}",
    summary: "已完成 {done} / {total}", summaryLeft: "已完成 {done} / {total} · 剩余 {time}",
    announceDone: "{name} 已完成。", announceFailed: "{name} 失败：{error}",
    token: "此服务器需要令牌", tokenHint: "启动服务器的终端会显示令牌。",
    tokenField: "令牌", enter: "进入", wrongToken: "令牌不正确。",
    about: "convattn {version}，运行于 {device}",
    "body-incomplete": "文件不完整，请重新发送。", "body-slow": "文件发送时间过长。",
    "token-wrong": "令牌不正确。", "host-unknown": "服务器不接受这个主机名，请用 --allow-host 允许它。",
    "other-site": "拒绝来自其他网站的请求。", "no-job": "没有这个任务，结果只保留一段时间。",
    "file-too-large": "文件太大，此服务器最多接受 {mebibytes} MiB。",
    "image-too-large": "图像有 {width}×{height} 像素，此服务器最多接受 {megapixels} 百万像素，请先缩小图像。",
    "result-too-large": "结果将有 {width}×{height} 像素，此服务器最多生成 {megapixels} 百万像素，请选择较小的倍数。",
    "too-many-frames": "视频有 {frames} 帧，此服务器最多接受 {most} 帧，请先剪短。",
    "out-of-memory": "服务器内存不足，请选择较小的图像或倍数。", "job-too-long": "计算超过 {seconds} 秒，已停止。",
    "file-unreadable": "不是可以读取的图像或视频，请转换为 PNG、JPEG、WebP、TIFF 或 MP4。",
    "decoder-missing": "这是 {format} 文件，服务器缺少它的解码器：{install}。",
    "file-damaged": "文件已损坏，请换一份完整的文件。", "no-model": "这里没有模型 {model}，可选：{models}。",
    invalid: "选项或图像无法使用：{reason}", "queue-full": "队列已满，请稍后再试。",
    "too-many-jobs": "您有 {count} 个未完成的任务，请等待其中一些完成。", "store-full": "服务器存储空间已满，请稍后再试。",
    crashed: "计算意外中断，可能是内存不足。", "failed-job": "服务器处理此图像时出错，原因见服务器日志。",
    stopping: "服务器即将停止。",
  },
};

let language = localStorage.getItem("language") ?? navigator.languages.find((l) => /^(en|zh)\b/.test(l))?.slice(0, 2) ?? "en";

// The words of a key, with {name} replaced by values.name.
export function text(key, values = {}) {
  return words[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// What went wrong, in the language of the page; in English the server says it itself.
export function problem({ detail, code, values }) {
  const key = code === "failed" ? "failed-job" : code;
  return key in words[language] ? text(key, values) : detail ?? text("failed");
}

// A duration in the language of the page, such as "3 min".
export function duration(seconds) {
  const [amount, unit] = seconds < 60 ? [seconds, "second"] : seconds < 3600 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  const digits = unit === "second" && amount < 10 ? 1 : 0;
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "short", maximumFractionDigits: digits }).format(amount);
}

// Fill in the words of an element and of all within it.
export function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
    if (element.matches("button")) element.title = text(element.dataset.label);
  }
}

export function useLanguage(chosen = language) {
  language = chosen;
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  translate(document);
}

export function switchLanguage() {
  useLanguage(language === "zh" ? "en" : "zh");
  localStorage.setItem("language", language);
}

export const otherLanguage = () => (language === "zh" ? ["English", "en"] : ["中文", "zh"]);
