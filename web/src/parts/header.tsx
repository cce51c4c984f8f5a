// The header of every view: navigation, time zone, and the signed-in user.
import { useLocation } from "preact-iso";
import { type Caller, hasRole } from "../session/session";
import { signOut } from "../session/sign-in";
import { ZoneSwitch } from "./zone-switch";

interface Props {
  caller: Caller;
  canSignOut: boolean;
}

const VIEWS: { path: string; name: string; isVisibleTo: (caller: Caller) => boolean }[] = [
  { path: "/", name: "Fleet", isVisibleTo: () => true },
  { path: "/logs", name: "Logs", isVisibleTo: () => true },
  { path: "/rejections", name: "Rejections", isVisibleTo: () => true },
  { path: "/ingest", name: "Ingest", isVisibleTo: () => true },
  { path: "/access", name: "Access", isVisibleTo: (caller) => hasRole(caller, "admin") },
];

export function Header({ caller, canSignOut }: Props) {
  const { path } = useLocation();
  const isCurrent = (view: string) =>
    view === "/" ? path === "/" || path.startsWith("/sensors/") : path === view;
  return (
    <header class="head">
      <a class="skip" href="#main">
        Skip to content
      </a>
      <span class="brand">Tributary</span>
      <nav aria-label="Views">
        {VIEWS.filter((view) => view.isVisibleTo(caller)).map(({ path, name }) => (
          <a key={path} href={path} aria-current={isCurrent(path) ? "page" : undefined}>
            {name}
          </a>
        ))}
      </nav>
      <div class="who">
        <ZoneSwitch />
        {canSignOut && (
          <>
            <span title={`Role: ${caller.role}`}>{caller.name}</span>
            <button type="button" class="plain" onClick={() => void signOut()}>
              Sign out
            </button>
          </>
        )}
      </div>
    </header>
  );
}
