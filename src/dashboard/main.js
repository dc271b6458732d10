/** Starts all parts of the page. */

import { installAdminKey } from "./admin_key.js";
import { installControls } from "./controls.js";
import { watchEvents } from "./events.js";
import { watchMetrics } from "./metrics.js";
import { watchOverview } from "./overview.js";

installAdminKey();
const overview = watchOverview();
installControls(overview, watchMetrics());
watchEvents(overview);
