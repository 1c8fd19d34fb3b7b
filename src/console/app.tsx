// The frame around every page: where one is, who one is, and what was just done.
import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type Live, type Session, useLive } from "./api";
import { DeadLettersPage } from "./pages/dead_letters";
import { GroupPage, GroupsPage } from "./pages/groups";
import { LatencyPage } from "./pages/latency";
import { MessagesPage } from "./pages/messages";
import { OverviewPage } from "./pages/overview";
import { TopicPage, TopicsPage } from "./pages/topics";
import { type Route, link, useRoute } from "./router";
import { Badge, Notices, SessionContext, sentence } from "./ui";

const PLACES: { page: string; name: string; short?: string; icon: string }[] = [
  { page: "", name: "Overview", icon: "M4 13h6V4H4zM14 20h6V4h-6zM4 20h6v-4H4z" },
  { page: "topics", name: "Topics", icon: "M4 6h16M4 12h16M4 18h10" },
  { page: "groups", name: "Groups", icon: "M9 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6M3 19c0-3 3-5 6-5s6 2 6 5M16 5.500a3 3 0 0 1 0 5M18 14.500c2 .8 3 2.500 3 4.500" },
  { page: "messages", name: "Messages", icon: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13M15.500 15.500 20 20" },
  { page: "dead-letters", name: "Dead letters", short: "Dead", icon: "M4 6h16v12H4zM4 7l8 6 8-6M9.500 13.500 4 18M14.500 13.500 20 18" },
  { page: "latency", name: "Latency", icon: "M12 21a8 8 0 1 0 0-16 8 8 0 0 0 0 16M12 9v4l2.500 2M10 2.500h4" },
];

function page(route: Route): { title: string; content: ComponentChildren } {
  const [at = "", about] = route.path;
  switch (at) {
    case "":
      return { title: "Overview", content: <OverviewPage /> };
    case "topics":
      return about === undefined
        ? { title: "Topics", content: <TopicsPage route={route} /> }
        : { title: about, content: <TopicPage key={about} topic={about} /> };
    case "groups":
      return about === undefined
        ? { title: "Groups", content: <GroupsPage route={route} /> }
        : { title: about, content: <GroupPage key={about} group={about} /> };
    case "messages":
      return { title: "Messages", content: <MessagesPage route={route} /> };
    case "dead-letters":
      return { title: "Dead letters", content: <DeadLettersPage route={route} /> };
    case "latency":
      return { title: "Latency", content: <LatencyPage route={route} /> };
    default:
      return {
        title: "Nothing here",
        content: (
          <p class="empty">
            There is no such page. <a href={link([])}>Overview</a>
          </p>
        ),
      };
  }
}

type Theme = "auto" | "light" | "dark";
const THEMES: Theme[] = ["auto", "light", "dark"];

function useTheme(): [Theme, () => void] {
  const [theme, set] = useState<Theme>(() => {
    try {
      const kept = localStorage.getItem("theme") as Theme | null;
      return kept && THEMES.includes(kept) ? kept : "auto";
    } catch {
      return "auto";
    }
  });
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // A browser that keeps nothing begins with its own.
    }
  }, [theme]);
  return [theme, () => set((last) => THEMES[(THEMES.indexOf(last) + 1) % THEMES.length]!)];
}

interface Notice {
  number: number;
  text: string;
  bad: boolean;
}

export function App() {
  const route = useRoute();
  const session = useLive<Session>("session", 15_000);
  const [theme, turn] = useTheme();
  const [notices, setNotices] = useState<Notice[]>([]);
  const numbers = useRef(0);
  const notice = useCallback((text: string, bad = false) => {
    const number = (numbers.current += 1);
    setNotices((all) => [...all.slice(-2), { number, text, bad }]);
    setTimeout(() => setNotices((all) => all.filter((one) => one.number !== number)), bad ? 12_000 : 5_000);
  }, []);
  const { title, content } = page(route);
  const main = useRef<HTMLElement>(null);
  const where = route.path.join("/");
  const begun = useRef(false);
  useEffect(() => {
    document.title = `${title} \u00b7 ${location.host} \u00b7 turbopump`;
    // Whoever goes to another page by key is there with the next one.
    if (begun.current) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    begun.current = true;
  }, [where]);
  const current = PLACES.some((place) => place.page === route.path[0]) ? route.path[0] : "";
  return (
    <SessionContext.Provider value={session.data}>
      <Notices.Provider value={notice}>
        <a
          class="skip"
          href="#main"
          onClick={(event) => {
            event.preventDefault();
            main.current?.focus();
          }}
        >
          Skip to the page
        </a>
        <header class="bar">
          <a class="brand" href={link([])}>
            <img src="icon.svg" alt="" width="24" height="24" /> turbopump
          </a>
          <Standing session={session} />
          <button type="button" class="small theme" onClick={turn} aria-label={`Colours: ${theme}`} title={`Colours: ${theme}`}>
            <svg viewBox="0 0 24 24" aria-hidden="true">
              <circle cx="12" cy="12" r="8" />
              <path class="full" d={theme === "light" ? "" : theme === "dark" ? "M12 4a8 8 0 0 0 0 16 8 8 0 0 0 0-16" : "M12 4a8 8 0 0 1 0 16z"} />
            </svg>
          </button>
        </header>
        <nav class="places" aria-label="Pages">
          <ul>
            {PLACES.map((place) => (
              <li key={place.page}>
                <a href={link(place.page ? [place.page] : [])} aria-current={place.page === current ? "page" : undefined}>
                  <svg viewBox="0 0 24 24" aria-hidden="true">
                    <path d={place.icon} />
                  </svg>
                  <span class={place.short ? "long" : ""}>{place.name}</span>
                  {place.short && (
                    <span class="brief" aria-hidden="true">
                      {place.short}
                    </span>
                  )}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <main id="main" ref={main} tabIndex={-1} aria-label={title}>
          {session.status === 401 || session.status === 403 ? (
            <div class="card problem" role="alert">
              <p>{sentence(session.error ?? "")}</p>
            </div>
          ) : session.data === null && session.error === null ? (
            // Nothing else is asked before it is known that this key may ask: each try with a wrong one counts.
            <p class="empty loading">Loading&hellip;</p>
          ) : (
            content
          )}
        </main>
        <div class="notices" role="status" aria-live="polite">
          {notices.map((one) => (
            <p key={one.number} class={one.bad ? "bad" : ""}>
              {one.text}
            </p>
          ))}
        </div>
      </Notices.Provider>
    </SessionContext.Provider>
  );
}

/** Whether the broker answers, and what one may do. */
function Standing({ session }: { session: Live<Session> }) {
  const { data, error } = session;
  return (
    <div class="standing">
      {error !== null ? (
        <Badge tone="bad" title={error}>
          no answer
        </Badge>
      ) : (
        data !== null && (
          <>
            <span class="node host" title={`${data.name}, node ${data.node}, turbopump ${data.version}`}>
              {location.host}
            </span>
            <span class="node version">{data.version}</span>
            {data.key !== null && <span class="node">{data.key}</span>}
            {!data.may_change && (
              <Badge tone="plain" title={data.read_only_because ?? ""}>
                read only
              </Badge>
            )}
          </>
        )
      )}
    </div>
  );
}
