// The root component: signs the user in, and shows the view of the current address.

import { useEffect } from "preact/hooks";
import { ErrorBoundary, LocationProvider, Route, Router } from "preact-iso";
import { Access } from "./access/access";
import { Fleet } from "./fleet/fleet";
import { Ingest } from "./ingest/ingest";
import { Logs } from "./logs/logs";
import { ConnectionBanner } from "./parts/connection-banner";
import { Header } from "./parts/header";
import { NotFound } from "./parts/not-found";
import { Rejections } from "./rejections/rejections";
import { Sensor } from "./sensor/sensor";
import { authIsOff, session } from "./session/session";
import { resume } from "./session/sign-in";
import { SignInPage } from "./session/sign-in-page";
import { useStore } from "./store";

export function App() {
  const now = useStore(session);
  useEffect(() => void resume(authIsOff), []);
  if (now.status === "starting") {
    return (
      <>
        <ConnectionBanner />
        <p class="starting" role="status">
          Loading …
        </p>
      </>
    );
  }
  if (now.status === "signed-out") {
    return (
      <>
        <ConnectionBanner />
        <SignInPage expired={now.expired} />
      </>
    );
  }
  const { caller, canSignOut } = now;
  return (
    <LocationProvider>
      <Header caller={caller} canSignOut={canSignOut} />
      <ConnectionBanner />
      <main id="main" tabIndex={-1}>
        <ErrorBoundary>
          <Router>
            <Route path="/" component={Fleet} caller={caller} />
            <Route path="/sensors/:identifier" component={Sensor} caller={caller} />
            <Route path="/logs" component={Logs} />
            <Route path="/rejections" component={Rejections} caller={caller} />
            <Route path="/ingest" component={Ingest} caller={caller} />
            <Route path="/access" component={Access} caller={caller} />
            <Route default component={NotFound} />
          </Router>
        </ErrorBoundary>
      </main>
    </LocationProvider>
  );
}
