// Rate and latency, from the difference between two looks at the counters.

import { h } from "./dom.js";
import { sparkline } from "./spark.js";

const KEPT = 45;
const samples = [];
const rates = [];
const slow = [];

const ROUND = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const count = new Intl.NumberFormat("en");

/** Takes a new look into account. */
export function note(activity) {
  const last = samples.at(-1);
  const seconds = last ? (Date.parse(activity.at) - Date.parse(last.at)) / 1000 : 0;
  if (last && seconds <= 0) return;
  // Smaller than before: the appliance was started anew.
  if (last && activity.attestations.signed < last.attestations.signed) forget();
  else if (last) {
    push(rates, (activity.attestations.signed - last.attestations.signed) / seconds);
    push(slow, quantile(activity, samples.at(-5) ?? samples[0], 0.99));
  }
  push(samples, activity);
}

export function forget() {
  samples.length = rates.length = slow.length = 0;
}

function push(list, value) {
  list.push(value);
  if (list.length > KEPT) list.shift();
}

/** As Prometheus does it: linear within the bucket. Null when nothing was asked for in between. */
function quantile(to, from, share) {
  const buckets = to.attestations.latency.buckets.map(({ at_most_seconds, count }, at) => ({
    bound: at_most_seconds,
    count: count - (from?.attestations.latency.buckets[at].count ?? 0),
  }));
  const all = to.attestations.latency.count - (from?.attestations.latency.count ?? 0);
  if (all <= 0) return null;
  const wanted = share * all;
  const at = buckets.findIndex((bucket) => bucket.count >= wanted);
  if (at < 0) return buckets.at(-1).bound;
  const [low, below] = at ? [buckets[at - 1].bound, buckets[at - 1].count] : [0, 0];
  return low + ((buckets[at].bound - low) * (wanted - below)) / Math.max(buckets[at].count - below, 1);
}

function duration(seconds) {
  if (seconds === null) return "–";
  const milliseconds = seconds * 1000;
  return milliseconds < 10 ? `${milliseconds.toFixed(1)} ms` : seconds < 1 ? `${milliseconds.toFixed(0)} ms` : `${seconds.toFixed(1)} s`;
}

const padded = (values) => [...Array(Math.max(KEPT - values.length, 0)).fill(null), ...values];

export function rateTile(activity) {
  const rate = rates.length ? ROUND.format(rates.at(-1)) : "–";
  const { signed, refused } = activity.attestations;
  return tile("Attestations", [rate, h("small", null, " signed a second")],
    `${count.format(signed)} signed, ${count.format(refused)} refused since the start`,
    sparkline(padded(rates), "Attestations signed a second, over the last minutes"));
}

export function latencyTile(activity) {
  const from = samples.at(-16) ?? samples[0];
  const [recent, since] = quantile(activity, from, 0.5) === null ? [null, "since the start"] : [from, "in the last minute"];
  const [half, most] = [quantile(activity, recent, 0.5), quantile(activity, recent, 0.99)];
  return tile("Latency", [duration(most), h("small", null, " 99th percentile")],
    half === null ? "nothing was signed yet" : `median ${duration(half)}, ${since}`,
    sparkline(padded(slow), "99th percentile of the latency, over the last minutes"));
}

export const tile = (title, figure, foot, ...more) =>
  h("section", { class: "tile" }, h("h2", null, title), h("p", { class: "figure" }, figure), h("p", { class: "foot" }, foot), more);
