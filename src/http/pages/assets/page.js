// Says times in the reader's zone and counts down beside them. Every page is complete without it.
(() => {
  "use strict";
  const long = new Intl.DateTimeFormat("en-GB", {
    day: "numeric", month: "long", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
  });
  const short = new Intl.DateTimeFormat("en-GB", {
    day: "numeric", month: "short", hour: "2-digit", minute: "2-digit",
  });
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.textContent;
      time.textContent = (time.dataset.short === undefined ? long : short).format(at);
    }
  }
  for (const zone of document.querySelectorAll("[data-zone]")) {
    zone.textContent = `Times are in your zone (${Intl.DateTimeFormat().resolvedOptions().timeZone}).`;
  }
  const some = (n, unit) => (n > 0 ? `${n} ${unit}${n === 1 ? "" : "s"}` : "");
  const left = (seconds) => {
    const minutes = Math.ceil(seconds / 60);
    const parts = [
      some(Math.floor(minutes / 1440), "day"),
      some(Math.floor(minutes / 60) % 24, "hour"),
      some(minutes % 60, "minute"),
    ];
    return parts.filter(Boolean).slice(0, 2).join(" ");
  };
  const counters = [...document.querySelectorAll("[data-until]")];
  // The page says what time it is there: a reader's clock that is off does not move the end.
  const skew = Date.parse(document.documentElement.dataset.now || "") - Date.now() || 0;
  const tick = () => {
    for (const counter of counters) {
      const seconds = (Date.parse(counter.dataset.until) - Date.now() - skew) / 1000;
      counter.textContent = seconds > 0 ? `in ${left(seconds)}` : "over by now; load the page again";
    }
  };
  if (counters.length > 0) {
    tick();
    setInterval(tick, 15000);
  }
})();
