/**
 * All routes in one table: which handler answers which method and path. The handlers are in the files beside this one.
 * @module
 */
import type { Handler, RouteTable } from '../call.ts'
import { Router } from '../router.ts'
import { accountRoutes } from './account.ts'
import { downloadRoutes } from './downloads.ts'
import { eventLogRoutes } from './event-log.ts'
import { fileKeyRoutes } from './file-keys.ts'
import { groupRoutes } from './groups.ts'
import { infoRoutes } from './info.ts'
import { memberRoutes } from './members.ts'
import { nodeExtraRoutes } from './node-extras.ts'
import { nodeRoutes } from './nodes.ts'
import { noneRoutes } from './none.ts'
import { oauthRoutes } from './oauth.ts'
import { pageRoutes } from './pages.ts'
import { profileRoutes } from './profile.ts'
import { publicDownloadRoutes } from './public-downloads.ts'
import { publicPageRoutes } from './public-pages.ts'
import { publicUploadRoutes } from './public-uploads.ts'
import { recycleBinRoutes } from './recycle-bin.ts'
import { rescueKeyRoutes } from './rescue-keys.ts'
import { roomRoutes } from './rooms.ts'
import { shareRoutes } from './shares.ts'
import { storageRoutes } from './storage.ts'
import { uploadRoutes } from './uploads.ts'
import { userRoutes } from './users.ts'

const API: readonly RouteTable[] = [
  accountRoutes,
  downloadRoutes,
  eventLogRoutes,
  fileKeyRoutes,
  groupRoutes,
  infoRoutes,
  memberRoutes,
  nodeExtraRoutes,
  nodeRoutes,
  noneRoutes,
  profileRoutes,
  publicDownloadRoutes,
  publicUploadRoutes,
  recycleBinRoutes,
  rescueKeyRoutes,
  roomRoutes,
  shareRoutes,
  uploadRoutes,
  userRoutes,
]

export function addRoutes(router: Router<Handler>): void {
  const add = (table: RouteTable, prefix: string): void => {
    for (const [route, handler] of Object.entries(table)) {
      const [method, path] = route.split(' ')
      router.add(method ?? '', `${prefix}${path}`, handler)
    }
  }
  for (const table of API) add(table, '/api')
  add(oauthRoutes, '')
  add(publicPageRoutes, '')
  add(pageRoutes, '')
  add(storageRoutes, '')
}

/** All of them. */
export function createRouter(): Router<Handler> {
  const router = new Router<Handler>()
  addRoutes(router)
  return router
}
