// What only the browser can do: keep the address in step with the sliders, and say which scheme it shows.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const scheme = () => (dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => window.dash_clientside.set_props("scheme", { data: scheme() }));

  function keep(query, path, tabs) {
    const search = query === undefined || query === null ? window.location.search : query ? "?" + query : "";
    // Replaced, not pushed: a drag is one step of the history.
    if (window.location.search !== search) {
      window.history.replaceState(window.history.state, "", window.location.pathname + search);
    }
    const here = (path || "/") === "/" ? "/how-much" : path;
    document.querySelectorAll("header nav a").forEach((link) => {
      if (new URL(link.href).pathname === here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    return tabs.map((tab) => "/" + tab.name + search);
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, { explore: { scheme, keep } });
})();
