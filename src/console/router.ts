// The page is in the address's fragment, so that the broker serves one document and a link to a topic is a link.
import { useEffect, useState } from "preact/hooks";

export interface Route {
  /** The page, and what it is about. */
  path: string[];
  search: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter((part) => part !== "");
  return { path: parts.map(decoded), search: new URLSearchParams(search) };
}

const decoded = (part: string) => {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
};

export function link(path: string[], search: Record<string, string | null | undefined> = {}): string {
  const said = Object.entries(search).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const text = new URLSearchParams(said).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export const go = (hash: string) => {
  location.hash = hash;
};

/** Changes the address without a step in the history: for what is typed. */
export const replace = (hash: string) => {
  history.replaceState(null, "", hash);
  dispatchEvent(new HashChangeEvent("hashchange"));
};

export function useRoute(): Route {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => {
      // Another fragment is a place on the page.
      if (location.hash === "" || location.hash.startsWith("#/")) set(parse(location.hash));
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
