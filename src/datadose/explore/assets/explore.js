// What only the browser can do: gather the sliders, keep the address in step, and say which scheme it shows.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const scheme = () => (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => window.dash_clientside.set_props("scheme", { data: scheme() }));

  // A hand moves faster than a server answers: only the newest setting is asked for, once the last answer is there.
  let inFlight = 0, silent = false;
  const ask = window.fetch;
  window.fetch = function (resource, ...rest) {
    const address = typeof resource === "string" ? resource : resource.url;
    if (!address.includes("_dash-update-component")) return ask.call(this, resource, ...rest);
    inFlight += 1;
    mark();
    return ask
      .call(this, resource, ...rest)
      .then(heard, (error) => {
        silent = true;
        say("complaint", "the server does not answer: does datadose explore still run?");
        throw error;
      })
      .finally(() => {
        inFlight -= 1;
        mark();
      });
  };

  function heard(answer) {
    if (answer.status === 413) say("upload-complaint", "upload: too many bytes; allowed: 32 MiB in all");
    else if (!answer.ok) say("complaint", `the server failed (${answer.status}): its log says why`);
    else if (silent) say("complaint", "");
    silent = !answer.ok;
    return answer;
  }

  const LONGEST_WAIT = 1500;
  const STILL = 400;
  const QUIET = 100;
  const LOOK = 300;
  let newest = null, waiting = null, since = 0, resting = null;

  // Busy until no answer is on its way and none is asked for any more: live text is read out then, and tests wait.
  const whenIdle = window.requestIdleCallback || ((then) => setTimeout(then, 0));
  let marked = 0, watching = false;

  function mark() {
    marked = performance.now();
    document.getElementById("page")?.setAttribute("aria-busy", "true");
    if (!watching) watch();
  }

  // An answer may ask for another one: that is known once the browser has nothing to do.
  function watch() {
    const asked = inFlight > 0 || waiting !== null || resting !== null;
    watching = asked || performance.now() - marked < QUIET;
    if (watching) setTimeout(() => whenIdle(watch), QUIET / 4);
    else document.getElementById("page")?.setAttribute("aria-busy", "false");
  }

  function flush() {
    if (inFlight > 0 && performance.now() - since < LONGEST_WAIT) {
      waiting = setTimeout(flush, 15);
      return;
    }
    waiting = null;
    set("setting", newest);
  }

  function put(id, properties) {
    try {
      window.dash_clientside.set_props(id, properties);
    } catch (gone) {
      // The view was left before its turn came.
    }
  }

  const say = (id, children) => put(id, { children });
  const set = (id, data) => put(id, { data });

  // A view opened before the last move is answered opens with that move.
  function carry(data, defaults, tabs) {
    const differs = Object.entries(data).filter(([name, value]) => value !== defaults[name]);
    const search = differs.length ? "?" + new URLSearchParams(differs) : "";
    tabs.forEach((tab) => put(tab, { href: "/" + tab.name + search }));
  }

  function gather(values, powers, chosen, levels, ids, power_ids, choices, carried, shown, defaults, tabs) {
    const data = Object.assign({}, carried);
    ids.forEach((id, place) => (data[id.name] = values[place]));
    power_ids.forEach((id, place) => (data[id.name] = power(powers[place])));
    choices.forEach((id, place) => (data[id.name] = chosen[place]));
    if (levels.length) data.levels = levels.some((level) => level) ? levels.map(exponent).join(",") : "";
    newest = data;
    mark();
    carry(data, defaults, tabs);
    clearTimeout(resting);
    resting = setTimeout(() => {
      resting = null;
      set("still", data);
      mark();
    }, STILL);
    // A view opens with the setting that it shows: answered with everything else that opens, and once.
    if (waiting === null && JSON.stringify(data) === JSON.stringify(shown)) return data;
    if (waiting === null) {
      since = performance.now();
      waiting = setTimeout(flush, 0);
    }
    return window.dash_clientside.no_update;
  }

  // Plain digits: a number such as 1e-7 is not one of an address.
  const exponent = (level) => String(Number((level || 0).toFixed(3)));

  // What was typed: [value, what is said of it]. What is no number is refused, what is out of range moved to an end.
  const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

  function better(text) {
    const percent = text.match(/^(.*\d)\s*%$/);
    const plain = (percent ? percent[1] : text).replace(/^(\d{1,3})((,\d{3})+)$/, (all) => (all[0] === "0" ? all : all.replace(/,/g, "")));
    const point = plain.replace(",", ".");
    if (point === text || !NUMBER.test(point)) return "";
    return `; write ${Number((percent ? Number(point) / 100 : Number(point)).toPrecision(12))}`;
  }

  function read(typed, old, low, high, whole) {
    const text = String(typed ?? "").trim();
    if (text === "") return [old, `Nothing was typed: ${old} is kept.`];
    if (!NUMBER.test(text)) return [old, `"${text}" is not a number${better(text)}. ${old} is kept.`];
    const value = Number(text);
    if (value < low) return [low, `${text} is below ${low}, the smallest: set to ${low}.`];
    if (value > high) return [high, `${text} is above ${high}, the largest: set to ${high}.`];
    if (whole && !Number.isInteger(value)) return [Math.round(value), `Only whole numbers: set to ${Math.round(value)}.`];
    return [value, ""];
  }

  const typedLast = () => window.dash_clientside.callback_context.triggered[0].prop_id.includes("-typed");
  const unlessSame = (value, before) => (String(value) === String(before) ? window.dash_clientside.no_update : value);

  // A slider and its typed number show the same value.
  function agree(drawn, typed, low, high, step) {
    const whole = Number.isInteger(low) && step >= 1;
    const [value, said] = typedLast() ? read(typed, drawn, low, high, whole) : [drawn, ""];
    return [unlessSame(value, drawn), unlessSame(value, typed), said];
  }

  // A slider along log10 and the number itself, to four digits.
  const rounded = (value) => Number(value.toPrecision(4));
  const power = (level) => rounded(10 ** level);

  function agree_power(drawn, typed, low, high) {
    const same = window.dash_clientside.no_update;
    if (!typedLast()) return [same, unlessSame(power(drawn), typed), ""];
    let [value, said] = read(typed, power(drawn), power(low), power(high), false);
    if (rounded(value) !== value) [value, said] = [rounded(value), `Kept to four digits: ${rounded(value)}.`];
    return [value === power(drawn) ? same : Math.log10(value), unlessSame(value, typed), said];
  }

  // Dash names neither the handle of a slider nor its number: the group around them has the name.
  function name() {
    document.querySelectorAll(".control[aria-labelledby]").forEach((group) => {
      const label = group.getAttribute("aria-labelledby");
      group.querySelectorAll("[role=slider], .track input").forEach((part) => {
        if (part.getAttribute("aria-labelledby") !== label) part.setAttribute("aria-labelledby", label);
      });
    });
  }
  new MutationObserver(name).observe(document.documentElement, { childList: true, subtree: true });

  // The next look at a simulation, once the last one is answered.
  let looking = null;
  function look_again(running) {
    clearTimeout(looking);
    if (running) looking = setTimeout(() => set("look", running.look), LOOK);
    return window.dash_clientside.no_update;
  }

  function keep(query, path, tabs, openings, defaults) {
    const search = query === undefined || query === null ? window.location.search : query ? "?" + query : "";
    const view = (path || "/").slice(1);
    const here = view === "" ? "/how-much" : path;
    // A view may open on a setting of its own where its address says nothing: what is shown has to be said.
    const said = new URLSearchParams(search);
    Object.keys(query === undefined || query === null ? {} : openings[view] || {}).forEach((name) => {
      if (!said.has(name)) said.append(name, defaults[name]);
    });
    const shown = said.size > new URLSearchParams(search).size ? "?" + said : search;
    // Replaced, not pushed: a drag is one step of the history.
    if (window.location.search !== shown) {
      window.history.replaceState(window.history.state, "", window.location.pathname + shown);
    }
    document.querySelectorAll("header nav a").forEach((link) => {
      if (new URL(link.href).pathname === here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    return tabs.map((tab) => "/" + tab.name + search);
  }

  // By hand: following the link would change the address, and with it build the view anew.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.(".skip");
    if (!link) return;
    event.preventDefault();
    (document.getElementById("answers") || document.getElementById("page")).focus();
  });

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explore: { scheme, keep, gather, agree, agree_power, look_again } });
})();
