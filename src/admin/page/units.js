// Numbers as people read them.

const three = (value) => {
  const size = Math.abs(value);
  if (Math.abs(value - Math.round(value)) < 1e-9) return String(Math.round(value));
  return value.toFixed(size >= 99.95 || size === 0 ? 0 : size >= 9.995 ? 1 : 2);
};

export function count(value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (value < 10_000) return Math.round(value).toLocaleString("en");
  if (value < 1e6) return `${three(value / 1e3)} k`;
  if (value < 1e9) return `${three(value / 1e6)} M`;
  return `${three(value / 1e9)} G`;
}

export function rate(value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (value > 0 && value < 10) return value < 0.1 ? value.toFixed(2) : value.toFixed(1);
  return count(value);
}

export function bytes(value) {
  if (value == null || Number.isNaN(value)) return "–";
  for (const [size, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) {
    if (value >= size) return `${three(value / size)} ${name}`;
  }
  return `${Math.round(value)} B`;
}

export function nanos(value) {
  if (value == null || Number.isNaN(value)) return "–";
  for (const [size, name] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) {
    if (value >= size * 0.9995) return `${three(value / size)} ${name}`;
  }
  return `${Math.round(value)} ns`;
}

export const percent = (part) => (part == null || Number.isNaN(part) ? "–" : `${(part * 100).toFixed(part < 0.0995 ? 1 : 0)} %`);

/// The two largest units of a number of seconds.
export function span(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days.toLocaleString("en")} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${whole % 60} s`;
  return `${whole} s`;
}

export const date = (seconds) => {
  const day = new Date(seconds * 1000);
  return Number.isNaN(day.getTime()) ? "far away" : day.toISOString().slice(0, 10);
};
