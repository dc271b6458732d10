/** Sample points: three metrics of the last hour, with values like those of a small server. */

const POINTS_OF_A_TYPE = 120;
const HOUR_MS = 3_600_000;

/** By type: the mean, the amplitude of the wave, the noise, and the range of the values. */
const SHAPES = {
  cpu_usage: { level: 42, swing: 18, noise: 6, from: 0, to: 100 },
  memory_usage: { level: 61, swing: 7, noise: 0.8, from: 0, to: 100 },
  response_time: { level: 85, swing: 30, noise: 22, from: 1, to: 2000 },
};

/** @returns {{timestamp: string, value: number, type: string}[]} */
export function samplePoints() {
  const now = Date.now();
  return Object.entries(SHAPES).flatMap(([type, shape]) => {
    const phase = Math.random() * 2 * Math.PI;
    return Array.from({ length: POINTS_OF_A_TYPE }, (_, place) => {
      const wave = shape.swing * Math.sin(phase + (place / POINTS_OF_A_TYPE) * 2.5 * Math.PI);
      const value = shape.level + wave + shape.noise * (Math.random() * 2 - 1);
      return {
        timestamp: new Date(now - HOUR_MS + ((place + 1) / POINTS_OF_A_TYPE) * HOUR_MS).toISOString(),
        value: Math.round(Math.min(shape.to, Math.max(shape.from, value)) * 100) / 100,
        type,
      };
    });
  });
}
